// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/artificial.hpp"

namespace trulysparse::bindings {

namespace {

Stream ingredient(std::uint64_t seed, std::int64_t step) {
    return make_stream(seed, static_cast<int>(Purpose::data), 0, step);
}

py::array uniform(std::uint64_t seed, std::int64_t step, std::uint64_t first, std::int64_t n, int threads) {
    check_threads(threads);
    Buffer<float> numbers(check_count(n, "n"));
    unlocked([&] { draw_uniform(ingredient(seed, step), first, n, numbers.data(), threads); });
    return to_numpy(std::move(numbers));
}

py::array integers(std::uint64_t seed, std::int64_t step, std::uint64_t first, std::int64_t n, std::uint64_t bound) {
    if (bound == 0) throw InvalidArgument("bound must be at least 1, got 0");
    Buffer<std::uint64_t> numbers(check_count(n, "n"));
    unlocked([&] { draw_bounded(ingredient(seed, step), first, n, bound, numbers.data()); });
    return to_numpy(std::move(numbers));
}

// Rows of the data that fit into the upper half of an index.
std::int64_t check_first_row(std::int64_t first_row, Size rows) {
    constexpr std::int64_t most = std::int64_t{1} << 32;
    if (first_row < 0 || rows > most - first_row)
        throw InvalidArgument("rows of artificial data are counted from 0 to 2^32 - 1, got " + std::to_string(rows) +
                              " from row " + std::to_string(first_row));
    return first_row;
}

void noise(std::uint64_t seed, std::int64_t step, std::int64_t first_row, py::handle out, int threads) {
    check_threads(threads);
    const auto block = array2<float>(out, "out", kAny, kAny);
    const auto first = static_cast<std::uint64_t>(check_first_row(first_row, block.rows));
    const Index columns = check_index(block.cols, "the number of features");
    unlocked([&] { draw_noise(ingredient(seed, step), first, block.rows, columns, block.data, threads); });
}

void cluster(std::uint64_t seed, std::int64_t step, py::handle rows, std::int64_t first_row, py::handle mixing,
             py::handle centroid, py::handle combining, py::handle places, py::handle out, int threads) {
    check_threads(threads);
    const auto block = array2<float>(out, "out", kAny, kAny);
    check_first_row(first_row, block.rows);
    const Index columns = check_index(block.cols, "the number of features");
    const auto chosen = array1<const std::int64_t>(rows, "rows");
    for (Size k = 0; k < chosen.size; ++k)
        if (chosen.data[k] < first_row || chosen.data[k] >= first_row + block.rows)
            throw InvalidArgument("rows must lie in the block that begins with row " + std::to_string(first_row) +
                                  ", got " + std::to_string(chosen.data[k]));
    const auto centre = array1<const float>(centroid, "centroid");
    const auto a = array2<const float>(mixing, "mixing", centre.size, centre.size);
    const auto b = array2<const float>(combining, "combining", centre.size, kAny);
    const auto where = array1<const std::int64_t>(places, "places", centre.size + b.cols);
    for (Size k = 0; k < where.size; ++k)
        if (where.data[k] < 0 || where.data[k] >= columns)
            throw InvalidArgument("places must be columns between 0 and " + std::to_string(columns - 1) + ", got " +
                                  std::to_string(where.data[k]));
    const Cluster shared{a.data,
                         centre.data,
                         b.data,
                         where.data,
                         check_index(centre.size, "the number of informative features"),
                         check_index(b.cols, "the number of redundant features")};
    unlocked([&] {
        place_cluster(ingredient(seed, step), shared, chosen.data, chosen.size, first_row, columns, block.data,
                      threads);
    });
}

}  // namespace

void bind_artificial(py::module_& m) {
    m.def("artificial_uniform", &uniform, "seed"_a, "step"_a, "first"_a, "n"_a, "threads"_a);
    m.def("artificial_integers", &integers, "seed"_a, "step"_a, "first"_a, "n"_a, "bound"_a);
    m.def("artificial_noise", &noise, "seed"_a, "step"_a, "first_row"_a, "out"_a, "threads"_a);
    m.def("artificial_cluster", &cluster, "seed"_a, "step"_a, "rows"_a, "first_row"_a, "mixing"_a, "centroid"_a,
          "combining"_a, "places"_a, "out"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
