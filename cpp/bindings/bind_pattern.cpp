// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"

namespace trulysparse::bindings {

namespace {

using Carrier = py::tuple;  // (row_ptr, col_idx, [arrays])

void validate_pattern(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx) {
    with_offset(row_ptr, "row_ptr", [&](auto tag) {
        using Offset = typename decltype(tag)::type;
        const Index rows = check_index(n_in, "n_in"), cols = check_index(n_out, "n_out");
        const auto offsets = array1<const Offset>(row_ptr, "row_ptr", static_cast<Size>(rows) + 1);
        const auto columns = array1<const Index>(col_idx, "col_idx");
        const PatternView<Offset> view{rows, cols, offsets.data, columns.data};
        unlocked([&] { validate(view, static_cast<std::uint64_t>(columns.size)); });
    });
}

py::tuple transpose_pattern(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx,
                            int threads) {
    check_threads(threads);
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        auto t = unlocked([&] { return transpose(p, threads); });
        return py::make_tuple(to_numpy(std::move(t.col_ptr)), to_numpy(std::move(t.row_idx)),
                              to_numpy(std::move(t.perm)));
    });
}

py::tuple transpose_with_values(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx,
                                py::handle values, int threads) {
    check_threads(threads);
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const auto carried = array1<const float>(values, "values", p.nnz());
        auto t = unlocked([&] { return transpose_values(p, carried.data, threads); });
        return py::make_tuple(to_numpy(std::move(t.col_ptr)), to_numpy(std::move(t.row_idx)),
                              to_numpy(std::move(t.values)));
    });
}

py::array in_degree(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx) {
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        Buffer<std::int64_t> counts(static_cast<std::size_t>(p.cols));
        unlocked([&] { count_by_target(p, counts.data()); });
        return py::array(to_numpy(std::move(counts)));
    });
}

Carrier keep_connections(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx, py::handle mask,
                         py::handle arrays, int threads) {
    check_threads(threads);
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const auto kept = array1<const bool>(mask, "mask", p.nnz());
        const auto values = float_arrays(arrays, "arrays", p.nnz());
        return to_tuple(unlocked(
            [&] { return keep(p, reinterpret_cast<const std::uint8_t*>(kept.data), values.pointers, threads); }));
    });
}

Carrier rewire_connections(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx,
                           py::handle mask, py::handle grown, py::handle arrays, py::handle fills, int threads) {
    check_threads(threads);
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const auto kept = optional1<const bool>(mask, "mask", p.nnz());
        const auto cells = array1<const Cell>(grown, "grown");
        const auto values = float_arrays(arrays, "arrays", p.nnz());
        const auto fill_values = optional_float_arrays(fills, "fills", cells.size);
        if (fill_values.pointers.size() != values.pointers.size())
            throw ShapeMismatch("fills must have one entry (an array or None) for each of the " +
                                std::to_string(values.pointers.size()) + " arrays, got " +
                                std::to_string(fill_values.pointers.size()));
        return to_tuple(unlocked([&] {
            return rewire(p, reinterpret_cast<const std::uint8_t*>(kept.data), cells.data,
                          static_cast<std::uint64_t>(cells.size), values.pointers, fill_values.pointers, threads);
        }));
    });
}

Carrier unite_patterns(std::int64_t n_in, std::int64_t n_out, const py::sequence& patterns, const py::sequence& arrays,
                       double divisor, int threads) {
    check_threads(threads);
    const std::size_t n_patterns = patterns.size();
    if (n_patterns == 0 || n_patterns != arrays.size())
        throw ShapeMismatch("unite needs at least one pattern and one list of arrays for each, got " +
                            std::to_string(n_patterns) + " patterns and " + std::to_string(arrays.size()) + " lists");
    const auto first = py::reinterpret_borrow<py::object>(py::sequence(patterns[0])[0]);
    return with_offset(first, "row_ptr of patterns[0]", [&](auto tag) {
        using Offset = typename decltype(tag)::type;
        std::vector<py::object> owners;  // a sequence may make what it gives anew each time it is asked
        std::vector<PatternView<Offset>> views;
        std::vector<std::vector<const float*>> values;
        for (std::size_t k = 0; k < n_patterns; ++k) {
            const py::sequence pair = patterns[k];
            const py::object row_ptr = pair[0], col_idx = pair[1];
            views.push_back(pattern_view<Offset>(n_in, n_out, row_ptr, col_idx));
            FloatArrays carried = float_arrays(py::object(arrays[k]), "arrays", views.back().nnz());
            values.push_back(std::move(carried.pointers));
            owners.insert(owners.end(), {row_ptr, col_idx});
            owners.insert(owners.end(), carried.owners.begin(), carried.owners.end());
            if (values.back().size() != values.front().size())
                throw ShapeMismatch("every pattern must carry as many arrays as the first (" +
                                    std::to_string(values.front().size()) + "), but number " + std::to_string(k) +
                                    " carries " + std::to_string(values.back().size()));
        }
        return to_tuple(unlocked([&] { return unite(views, values, divisor, threads); }));
    });
}

// Written to `out`, or to new arrays if that is None.
py::list carry_arrays(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx,
                      py::handle onto_row_ptr, py::handle onto_col_idx, py::handle arrays, py::handle out,
                      int threads) {
    check_threads(threads);
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        using Offset = typename decltype(tag)::type;
        const auto from = pattern_view<Offset>(n_in, n_out, row_ptr, col_idx);
        const auto onto = pattern_view<Offset>(n_in, n_out, onto_row_ptr, onto_col_idx, "onto_row_ptr", "onto_col_idx");
        const auto nnz = static_cast<std::size_t>(onto.nnz());
        const auto values = float_arrays(arrays, "arrays", from.nnz());
        std::vector<Buffer<float>> fresh;
        std::vector<float*> results;
        py::list carried;
        if (out.is_none()) {
            for (std::size_t a = 0; a < values.pointers.size(); ++a) {
                fresh.emplace_back(nnz);
                results.push_back(fresh.back().data());
            }
        } else {
            for (py::handle item : out) {
                const std::string label = "out[" + std::to_string(results.size()) + "]";
                const auto result = array1<float>(item, label.c_str(), static_cast<Size>(nnz));
                for (const float* array : values.pointers)
                    if (overlap(result.data, bytes_of(result), array,
                                static_cast<std::size_t>(from.nnz()) * sizeof(float)))
                        throw InvalidArgument(label + " shares memory with an array that is carried; write to another");
                for (const float* other : results)
                    if (overlap(result, Array1<const float>{other, result.size}))
                        throw InvalidArgument(label + " shares memory with another array of out; each must be apart");
                carried.append(item);
                results.push_back(result.data);
            }
            if (results.size() != values.pointers.size())
                throw ShapeMismatch("out must have one array for each of the " +
                                    std::to_string(values.pointers.size()) + " arrays, got " +
                                    std::to_string(results.size()));
        }
        unlocked([&] { carry(from, onto, values.pointers, results, threads); });
        for (Buffer<float>& buffer : fresh) carried.append(to_numpy(std::move(buffer)));
        return carried;
    });
}

Carrier select_neurons(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx, py::handle rows,
                       py::handle cols, py::handle arrays, int threads) {
    check_threads(threads);
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const auto chosen_rows = optional1<const Index>(rows, "rows"),
                   chosen_cols = optional1<const Index>(cols, "cols");
        const Index n_rows = rows.is_none() ? p.rows : check_index(chosen_rows.size, "the length of rows");
        const Index n_cols = cols.is_none() ? p.cols : check_index(chosen_cols.size, "the length of cols");
        const auto values = float_arrays(arrays, "arrays", p.nnz());
        return to_tuple(unlocked(
            [&] { return select(p, chosen_rows.data, n_rows, chosen_cols.data, n_cols, values.pointers, threads); }));
    });
}

py::array draw_missing_cells(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx,
                             py::handle mask, std::int64_t count, std::uint64_t seed, int purpose, std::int64_t layer,
                             std::int64_t step, int threads) {
    check_threads(threads);
    const Stream stream = make_stream(seed, purpose, layer, step);
    const std::uint64_t n = check_count(count, "count");
    return with_offset(row_ptr, "row_ptr", [&](auto tag) {
        const auto p = pattern_view<typename decltype(tag)::type>(n_in, n_out, row_ptr, col_idx);
        const auto kept = optional1<const bool>(mask, "mask", p.nnz());
        const std::uint64_t free = p.cells() - static_cast<std::uint64_t>(p.nnz());  // at least
        if (n <= free) check_memory(bytes_to_draw_missing(n, free), "drawing " + std::to_string(n) + " cells");
        return to_numpy(unlocked(
            [&] { return draw_missing(p, reinterpret_cast<const std::uint8_t*>(kept.data), n, stream, threads); }));
    });
}

py::tuple pattern_from_cells(std::int64_t n_in, std::int64_t n_out, py::handle cells, int threads) {
    check_threads(threads);
    const Index rows = check_index(n_in, "n_in"), cols = check_index(n_out, "n_out");
    const auto numbers = array1<const Cell>(cells, "cells");
    const auto n = static_cast<std::uint64_t>(numbers.size);
    if (numbers.size <= std::numeric_limits<std::int32_t>::max())
        return to_tuple(unlocked([&] { return from_cells<std::int32_t>(rows, cols, numbers.data, n, threads); }));
    return to_tuple(unlocked([&] { return from_cells<std::int64_t>(rows, cols, numbers.data, n, threads); }));
}

}  // namespace

void bind_pattern(py::module_& m) {
    m.def("validate_pattern", &validate_pattern, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a);
    m.def("transpose", &transpose_pattern, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "threads"_a);
    m.def("in_degree", &in_degree, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a);
    m.def("transpose_values", &transpose_with_values, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "values"_a,
          "threads"_a);
    m.def("keep", &keep_connections, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "mask"_a, "arrays"_a, "threads"_a);
    m.def("rewire", &rewire_connections, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "mask"_a, "grown"_a, "arrays"_a,
          "fills"_a, "threads"_a);
    m.def("unite", &unite_patterns, "n_in"_a, "n_out"_a, "patterns"_a, "arrays"_a, "divisor"_a, "threads"_a);
    m.def("carry", &carry_arrays, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "onto_row_ptr"_a, "onto_col_idx"_a,
          "arrays"_a, "out"_a, "threads"_a);
    m.def("select", &select_neurons, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "rows"_a, "cols"_a, "arrays"_a,
          "threads"_a);
    m.def("draw_missing", &draw_missing_cells, "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "mask"_a, "count"_a,
          "seed"_a, "purpose"_a, "layer"_a, "step"_a, "threads"_a);
    m.def("from_cells", &pattern_from_cells, "n_in"_a, "n_out"_a, "cells"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
