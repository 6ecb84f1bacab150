// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/probe.hpp"

namespace trulysparse::bindings {

namespace {

py::tuple fma(std::int64_t rounds, float a, float b, int threads) {
    check_threads(threads);
    check_count(rounds, "rounds");
    const FmaProbe probe = unlocked([&] { return probe_fma(rounds, a, b, threads); });
    return py::make_tuple(probe.flops, probe.sum);
}

double read(py::handle data, int passes, int threads) {
    check_threads(threads);
    check_count(passes, "passes");
    const auto floats = array1<const float>(data, "data");
    return unlocked([&] { return probe_read(floats.data, floats.size, passes, threads); });
}

double rows(py::handle matrix, py::handle order, std::int64_t ahead, int threads) {
    check_threads(threads);
    check_count(ahead, "ahead");
    const auto floats = activations<const float>(matrix, "matrix");
    const Index width = static_cast<Index>(floats.cols);
    if (width == 0 || (width & (width - 1)) != 0)
        throw InvalidArgument("matrix must have 16 times a power of two columns, got " + std::to_string(width));
    const auto places = array1<const Index>(order, "order");
    for (Size k = 0; k < places.size; ++k)
        if (places.data[k] < 0 || places.data[k] >= floats.rows)
            throw InvalidArgument("order must hold row numbers between 0 and " + std::to_string(floats.rows - 1) +
                                  ", got " + std::to_string(places.data[k]) + " at position " + std::to_string(k));
    return unlocked([&] { return probe_rows(floats.data, width, places.data, places.size, ahead, threads); });
}

}  // namespace

void bind_probe(py::module_& m) {
    m.def("probe_fma", &fma, "rounds"_a, "a"_a, "b"_a, "threads"_a);
    m.def("probe_read", &read, "data"_a, "passes"_a, "threads"_a);
    m.def("probe_rows", &rows, "matrix"_a, "order"_a, "ahead"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
