// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/neuron.hpp"
#include "trulysparse/select.hpp"

namespace trulysparse::bindings {

namespace {

py::tuple signs(py::handle values, int threads) {
    check_threads(threads);
    const auto w = array1<const float>(values, "values");
    const SignCounts counts =
        unlocked([&] { return count_signs(w.data, static_cast<std::uint64_t>(w.size), threads); });
    return py::make_tuple(counts.positive, counts.negative, counts.zero);
}

py::tuple drop_signs(py::handle values, std::int64_t k_positive, std::int64_t k_negative, bool drop_zeros,
                     int threads) {
    check_threads(threads);
    const auto w = array1<const float>(values, "values");
    const std::uint64_t positive = check_count(k_positive, "k_positive"),
                        negative = check_count(k_negative, "k_negative");
    Buffer<std::uint8_t> mask(static_cast<std::size_t>(w.size));
    const std::uint64_t dropped = unlocked([&] {
        return drop_by_sign(w.data, static_cast<std::uint64_t>(w.size), positive, negative, drop_zeros, mask.data(),
                            threads);
    });
    return py::make_tuple(mask_to_numpy(std::move(mask)), dropped);
}

py::array drop_magnitudes(py::handle values, std::int64_t k, int threads) {
    check_threads(threads);
    const auto w = array1<const float>(values, "values");
    const std::uint64_t count = check_count(k, "k");
    Buffer<std::uint8_t> mask(static_cast<std::size_t>(w.size));
    unlocked([&] { drop_smallest(w.data, static_cast<std::uint64_t>(w.size), count, mask.data(), threads); });
    return mask_to_numpy(std::move(mask));
}

py::array strength(py::handle col_ptr, py::handle perm, py::handle values, int threads) {
    check_threads(threads);
    return with_offset(col_ptr, "col_ptr", [&](auto tag) {
        using Offset = typename decltype(tag)::type;
        const auto offsets = array1<const Offset>(col_ptr, "col_ptr");
        if (offsets.size < 1) throw_shape(col_ptr, "col_ptr", "(n_out + 1,)");
        const Index cols = check_index(offsets.size - 1, "n_out");
        const auto places = array1<const Offset>(perm, "perm");
        const auto w = array1<const float>(values, "values", places.size);
        Buffer<float> out(static_cast<std::size_t>(cols));
        const IndexArrays<Offset> index{cols, offsets.data, "col_ptr", nullptr, 0, "", places.data};
        unlocked([&] {
            check_index_arrays(index, static_cast<std::uint64_t>(places.size), threads);
            incoming_strength(offsets.data, places.data, cols, w.data, out.data(), threads);
        });
        return to_numpy(std::move(out));
    });
}

py::tuple drop_targets(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx,
                       py::handle targets, int threads) {
    check_threads(threads);
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const auto marked = array1<const bool>(targets, "targets", p.cols);
        Buffer<std::uint8_t> mask(static_cast<std::size_t>(p.nnz()));
        const std::uint64_t dropped = unlocked(
            [&] { return drop_incoming(p, reinterpret_cast<const std::uint8_t*>(marked.data), mask.data(), threads); });
        return py::make_tuple(mask_to_numpy(std::move(mask)), dropped);
    });
}

}  // namespace

void bind_select(py::module_& m) {
    m.def("count_signs", &signs, "values"_a, "threads"_a);
    m.def("drop_by_sign", &drop_signs, "values"_a, "k_positive"_a, "k_negative"_a, "drop_zeros"_a, "threads"_a);
    m.def("drop_smallest", &drop_magnitudes, "values"_a, "k"_a, "threads"_a);
    m.def("incoming_strength", &strength, "col_ptr"_a, "perm"_a, "values"_a, "threads"_a);
    m.def("drop_incoming", &drop_targets, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "targets"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
