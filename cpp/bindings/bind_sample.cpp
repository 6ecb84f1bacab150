// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cmath>

#include "common.hpp"
#include "trulysparse/sample.hpp"

namespace trulysparse::bindings {

namespace {

constexpr double kInt32Limit = 2147483647.0;

// A pattern, and the sorted cells that it is made of.
double pattern_bytes(Index rows, double connections) { return 12.0 * connections + 4.0 * static_cast<double>(rows); }

template <class F>
py::tuple sampled(double most_connections, F&& sample) {
    if (most_connections <= kInt32Limit) return to_tuple(unlocked([&] { return sample(Tag<std::int32_t>{}); }));
    return to_tuple(unlocked([&] { return sample(Tag<std::int64_t>{}); }));
}

py::tuple bernoulli(std::int64_t n_in, std::int64_t n_out, double density, std::uint64_t seed, int purpose,
                    std::int64_t layer, std::int64_t step, int threads) {
    check_threads(threads);
    const Index rows = check_index(n_in, "n_in"), cols = check_index(n_out, "n_out");
    if (!(density >= 0.0 && density <= 1.0))
        throw InvalidArgument("density must be between 0 and 1, got " + std::string(py::str(py::float_(density))));
    const Stream stream = make_stream(seed, purpose, layer, step);
    const double mean = density * static_cast<double>(n_in) * static_cast<double>(n_out);
    check_memory(8.0 * mean + 8.0 * static_cast<double>(rows),
                 "drawing a pattern of about " + std::to_string(static_cast<std::uint64_t>(mean)) + " connections");
    return sampled(mean + 10.0 * std::sqrt(mean), [&](auto tag) {  // ten standard deviations: it always fits
        return sample_bernoulli<typename decltype(tag)::type>(rows, cols, density, stream, threads);
    });
}

py::tuple with_replacement(std::int64_t n_in, std::int64_t n_out, std::int64_t draws, std::uint64_t seed, int purpose,
                           std::int64_t layer, std::int64_t step, int threads) {
    check_threads(threads);
    const Index rows = check_index(n_in, "n_in"), cols = check_index(n_out, "n_out");
    const std::uint64_t n = check_count(draws, "draws");
    const Stream stream = make_stream(seed, purpose, layer, step);
    const double cells = static_cast<double>(rows) * static_cast<double>(cols);
    if (cells > 0)  // else the sampler refuses
        check_memory(
            std::max(16.0 * static_cast<double>(n), pattern_bytes(rows, std::min(static_cast<double>(n), cells))),
            std::to_string(draws) + " draws with replacement");
    return sampled(std::min(static_cast<double>(draws), cells), [&](auto tag) {
        return sample_with_replacement<typename decltype(tag)::type>(rows, cols, n, stream, threads);
    });
}

py::tuple exact(std::int64_t n_in, std::int64_t n_out, std::int64_t count, std::uint64_t seed, int purpose,
                std::int64_t layer, std::int64_t step, int threads) {
    check_threads(threads);
    const Index rows = check_index(n_in, "n_in"), cols = check_index(n_out, "n_out");
    const std::uint64_t n = check_count(count, "count");
    const Stream stream = make_stream(seed, purpose, layer, step);
    const std::uint64_t cells = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(cols);
    if (n <= cells)  // else the sampler refuses
        check_memory(std::max(bytes_to_draw_missing(n, cells), pattern_bytes(rows, static_cast<double>(n))),
                     "drawing " + std::to_string(n) + " connections");
    return sampled(static_cast<double>(count), [&](auto tag) {
        return sample_exact<typename decltype(tag)::type>(rows, cols, n, stream, threads);
    });
}

Distribution make_distribution(const std::string& name) {
    if (name == "uniform") return Distribution::uniform;
    if (name == "normal") return Distribution::normal;
    throw InvalidArgument("distribution must be 'uniform' or 'normal', got '" + name + "'");
}

struct Scale {
    float one = 0.0f;
    Array1<const float> each;
};

void check_scale(double value, const std::string& where) {
    if (!(value >= 0.0 && value <= static_cast<double>(std::numeric_limits<float>::max())))
        throw InvalidArgument("scale must be a finite float32 number of at least 0, got " +
                              std::string(py::repr(py::float_(value))) + where);
}

Scale make_scale(py::handle object, Index cols) {
    Scale scale;
    if (py::isinstance<py::array>(object)) {
        scale.each = array1<const float>(object, "scale", cols);
        for (Size j = 0; j < scale.each.size; ++j)
            check_scale(static_cast<double>(scale.each.data[j]), " at position " + std::to_string(j));
        return scale;
    }
    const double one = PyFloat_AsDouble(object.ptr());
    if (one == -1.0 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError)) throw py::error_already_set();
        PyErr_Clear();
        throw py::type_error("scale must be a number or a float32 array of one a target, got " + describe(object));
    }
    check_scale(one, "");
    scale.one = static_cast<float>(one);
    return scale;
}

py::array values_of_pattern(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx,
                            const std::string& distribution, py::handle scale, std::uint64_t seed, int purpose,
                            std::int64_t layer, std::int64_t step, int threads) {
    check_threads(threads);
    const Distribution kind = make_distribution(distribution);
    const Stream stream = make_stream(seed, purpose, layer, step);
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const Scale s = make_scale(scale, p.cols);
        Buffer<float> out(static_cast<std::size_t>(p.nnz()));
        unlocked([&] {
            draw_values(p, kind, s.each.data ? s.each.data : &s.one,
                        s.each.data ? static_cast<std::uint64_t>(s.each.size) : 1, stream, out.data(), threads);
        });
        return to_numpy(std::move(out));
    });
}

py::array values_at(py::handle cells, std::int64_t n_out, const std::string& distribution, py::handle scale,
                    std::uint64_t seed, int purpose, std::int64_t layer, std::int64_t step, int threads) {
    check_threads(threads);
    const Index cols = check_index(n_out, "n_out");
    const Distribution kind = make_distribution(distribution);
    const Stream stream = make_stream(seed, purpose, layer, step);
    const auto numbers = array1<const Cell>(cells, "cells");
    const Scale s = make_scale(scale, cols);
    Buffer<float> out(static_cast<std::size_t>(numbers.size));
    unlocked([&] {
        draw_values(numbers.data, static_cast<std::uint64_t>(numbers.size), cols, kind,
                    s.each.data ? s.each.data : &s.one, s.each.data ? static_cast<std::uint64_t>(s.each.size) : 1,
                    stream, out.data(), threads);
    });
    return to_numpy(std::move(out));
}

}  // namespace

void bind_sample(py::module_& m) {
    m.def("sample_bernoulli", &bernoulli, "n_in"_a, "n_out"_a, "density"_a, "seed"_a, "purpose"_a, "layer"_a, "step"_a,
          "threads"_a);
    m.def("sample_with_replacement", &with_replacement, "n_in"_a, "n_out"_a, "draws"_a, "seed"_a, "purpose"_a,
          "layer"_a, "step"_a, "threads"_a);
    m.def("sample_exact", &exact, "n_in"_a, "n_out"_a, "count"_a, "seed"_a, "purpose"_a, "layer"_a, "step"_a,
          "threads"_a);
    m.def("draw_values", &values_of_pattern, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "distribution"_a, "scale"_a,
          "seed"_a, "purpose"_a, "layer"_a, "step"_a, "threads"_a);
    m.def("draw_values_at", &values_at, "cells"_a, "n_out"_a, "distribution"_a, "scale"_a, "seed"_a, "purpose"_a,
          "layer"_a, "step"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
