// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/missing.hpp"

#include <algorithm>

#include "common.hpp"

namespace trulysparse::bindings {

namespace {

// Buffers of found cells while they grow, and the answer.
void check_top_memory(std::uint64_t cells, std::uint64_t k, int threads) {
    const double most = static_cast<double>(std::min(k, cells));
    const double found = std::min(2.0 * most * threads, static_cast<double>(cells));
    check_memory(48.0 * found + 12.0 * most, "choosing among " + std::to_string(cells) + " cells");
}

py::tuple to_tuple(MissingTop&& top) {
    return py::make_tuple(to_numpy(std::move(top.cells)), to_numpy(std::move(top.values)));
}

py::tuple top_gradients(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx, py::handle mask,
                        py::handle x, py::handle dy, std::int64_t k, int threads) {
    check_threads(threads);
    const std::uint64_t count = check_count(k, "k");
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const auto kept = optional1<const bool>(mask, "mask", p.nnz());
        const auto inputs = activations<const float>(x, "x", p.rows);
        const auto deltas = activations<const float>(dy, "dy", p.cols, inputs.cols);
        check_top_memory(p.cells(), count, threads);
        return to_tuple(unlocked([&] {
            return top_missing_gradients(p, reinterpret_cast<const std::uint8_t*>(kept.data), inputs.data, deltas.data,
                                         static_cast<Index>(inputs.cols), count, threads);
        }));
    });
}

py::tuple top_values(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx, py::handle mask,
                     py::handle dense, std::int64_t k, int threads) {
    check_threads(threads);
    const std::uint64_t count = check_count(k, "k");
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const auto kept = optional1<const bool>(mask, "mask", p.nnz());
        const auto values = array2<const float>(dense, "dense", p.rows, p.cols);
        check_top_memory(p.cells(), count, threads);
        return to_tuple(unlocked([&] {
            return top_missing_values(p, reinterpret_cast<const std::uint8_t*>(kept.data), values.data, count, threads);
        }));
    });
}

py::array gradients_at(std::int64_t n_in, std::int64_t n_out, py::handle cells, py::handle x, py::handle dy,
                       int threads) {
    check_threads(threads);
    const Index rows = check_index(n_in, "n_in"), cols = check_index(n_out, "n_out");
    const auto places = array1<const Cell>(cells, "cells");
    const auto inputs = activations<const float>(x, "x", rows);
    const auto deltas = activations<const float>(dy, "dy", cols, inputs.cols);
    const Cell end = static_cast<Cell>(rows) * static_cast<Cell>(cols);
    for (Size c = 0; c < places.size; ++c)
        if (places.data[c] >= end)
            throw InvalidArgument("cells must be below n_in * n_out (" + std::to_string(end) + "), got " +
                                  std::to_string(places.data[c]) + " at position " + std::to_string(c));
    Buffer<float> out(static_cast<std::size_t>(places.size));
    unlocked([&] {
        gradient_at(places.data, static_cast<std::uint64_t>(places.size), cols, inputs.data, deltas.data,
                    static_cast<Index>(inputs.cols), out.data(), threads);
    });
    return to_numpy(std::move(out));
}

void accumulate(py::handle dense, py::handle x, py::handle dy, float decay, float weight, int threads) {
    check_threads(threads);
    const auto sums = array2<float>(dense, "dense", kAny, kAny);
    const Index rows = check_index(sums.rows, "rows of dense"), cols = check_index(sums.cols, "columns of dense");
    const auto inputs = activations<const float>(x, "x", rows);
    const auto deltas = activations<const float>(dy, "dy", cols, inputs.cols);
    if (overlap(sums, inputs) || overlap(sums, deltas))
        throw InvalidArgument("dense shares memory with x or dy, which it is made of; pass another array");
    unlocked([&] {
        accumulate_gradient(sums.data, rows, cols, inputs.data, deltas.data, static_cast<Index>(inputs.cols), decay,
                            weight, threads);
    });
}

}  // namespace

void bind_missing(py::module_& m) {
    py::register_local_exception<NotFinite>(m, "NotFiniteError", PyExc_ValueError);
    m.def("top_missing_gradients", &top_gradients, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "mask"_a, "x"_a,
          "dy"_a, "k"_a, "threads"_a);
    m.def("top_missing_values", &top_values, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "mask"_a, "dense"_a, "k"_a,
          "threads"_a);
    m.def("gradient_at", &gradients_at, "n_in"_a, "n_out"_a, "cells"_a, "x"_a, "dy"_a, "threads"_a);
    m.def("accumulate_gradient", &accumulate, "dense"_a, "x"_a, "dy"_a, "decay"_a, "weight"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
