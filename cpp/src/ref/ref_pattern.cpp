// SPDX-License-Identifier: BSD-3-Clause
#include "ref_pattern.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "../blocks.hpp"

namespace trulysparse::ref {

namespace {

// The positions of the values for which `eligible`, smallest magnitude first, ties in their order.
template <class Eligible>
std::vector<std::size_t> by_magnitude(const std::vector<float>& values, Eligible eligible) {
    std::vector<std::size_t> positions;
    for (std::size_t k = 0; k < values.size(); ++k)
        if (eligible(values[k])) positions.push_back(k);
    std::stable_sort(positions.begin(), positions.end(),
                     [&](std::size_t a, std::size_t b) { return std::fabs(values[a]) < std::fabs(values[b]); });
    return positions;
}

template <class Offset>
void add_up(Buffer<Offset>& counts) {
    for (std::size_t i = 1; i < counts.size(); ++i) counts[i] = static_cast<Offset>(counts[i] + counts[i - 1]);
}

template <class Offset>
std::vector<std::pair<Index, Index>> places(const PatternView<Offset>& p) {
    std::vector<std::pair<Index, Index>> result;
    for (Index i = 0; i < p.rows; ++i)
        for (std::int64_t k = p.row_ptr[i]; k < p.row_ptr[i + 1]; ++k) result.emplace_back(i, p.col_idx[k]);
    return result;
}

}  // namespace

template <class Offset>
Connections read(const PatternView<Offset>& p, const std::vector<const float*>& arrays) {
    Connections connections;
    std::size_t k = 0;
    for (const auto& place : places(p)) {
        for (const float* array : arrays) connections[place].push_back(array[k]);
        connections[place];
        ++k;
    }
    return connections;
}

template <class Offset>
Carried<Offset> write(Index rows, Index cols, const Connections& connections, std::size_t n_arrays) {
    const std::size_t n = connections.size();
    Carried<Offset> out{{rows, cols, Buffer<Offset>(size_of(rows) + 1, Offset{0}), Buffer<Index>(n)}, {}};
    for (std::size_t a = 0; a < n_arrays; ++a) out.arrays.emplace_back(n);
    std::size_t k = 0;
    for (const auto& [place, carried] : connections) {
        ++out.pattern.row_ptr[size_of(place.first) + 1];
        out.pattern.col_idx[k] = place.second;
        for (std::size_t a = 0; a < n_arrays; ++a) out.arrays[a][k] = carried[a];
        ++k;
    }
    add_up(out.pattern.row_ptr);
    return out;
}

template <class Offset>
Transposed<Offset> transpose(const PatternView<Offset>& p) {
    std::set<std::tuple<Index, Index, Offset>> sorted;
    Offset k = 0;
    for (const auto& [row, col] : places(p)) sorted.emplace(col, row, k++);
    Transposed<Offset> t{Buffer<Offset>(size_of(p.cols) + 1, Offset{0}), Buffer<Index>(sorted.size()),
                         Buffer<Offset>(sorted.size())};
    std::size_t at = 0;
    for (const auto& [col, row, position] : sorted) {
        ++t.col_ptr[size_of(col) + 1];
        t.row_idx[at] = row;
        t.perm[at++] = position;
    }
    add_up(t.col_ptr);
    return t;
}

template <class Offset>
Carried<Offset> rewire(const PatternView<Offset>& p, const std::vector<std::uint8_t>& mask,
                       const std::vector<Cell>& grown, const std::vector<const float*>& arrays,
                       const std::vector<const float*>& fills) {
    Connections connections;
    std::size_t k = 0;
    for (const auto& [place, carried] : read(p, arrays))
        if (mask[k++]) connections[place] = carried;
    for (std::size_t g = 0; g < grown.size(); ++g) {
        const auto cols = static_cast<Cell>(p.cols);
        auto& carried = connections[{static_cast<Index>(grown[g] / cols), static_cast<Index>(grown[g] % cols)}];
        for (const float* fill : fills) carried.push_back(fill ? fill[g] : 0.0f);
    }
    return write<Offset>(p.rows, p.cols, connections, arrays.size());
}

template <class Offset>
Carried<Offset> unite(const std::vector<PatternView<Offset>>& patterns,
                      const std::vector<std::vector<const float*>>& arrays, double divisor) {
    std::map<std::pair<Index, Index>, std::vector<double>> sums;
    for (std::size_t s = 0; s < patterns.size(); ++s)
        for (const auto& [place, carried] : read(patterns[s], arrays[s])) {
            const auto [at, is_new] = sums.emplace(place, std::vector<double>(carried.begin(), carried.end()));
            for (std::size_t a = 0; !is_new && a < carried.size(); ++a) at->second[a] += carried[a];
        }
    Connections united;
    for (const auto& [place, sum] : sums) {
        std::vector<float>& rounded = united[place];
        for (double value : sum) rounded.push_back(static_cast<float>(value / divisor));
    }
    return write<Offset>(patterns[0].rows, patterns[0].cols, united, arrays[0].size());
}

template <class Offset>
std::vector<std::vector<float>> carry(const PatternView<Offset>& from, const PatternView<Offset>& onto,
                                      const std::vector<const float*>& arrays) {
    const Connections known = read(from, arrays);
    std::vector<std::vector<float>> out(arrays.size());
    for (const auto& place : places(onto)) {
        const auto found = known.find(place);
        for (std::size_t a = 0; a < arrays.size(); ++a)
            out[a].push_back(found == known.end() ? 0.0f : found->second[a]);
    }
    return out;
}

template <class Offset>
Carried<Offset> select(const PatternView<Offset>& p, const std::vector<Index>& rows, const std::vector<Index>& cols,
                       const std::vector<const float*>& arrays) {
    Connections chosen;
    for (const auto& [place, carried] : read(p, arrays)) {
        const auto row = std::find(rows.begin(), rows.end(), place.first);
        const auto col = std::find(cols.begin(), cols.end(), place.second);
        if (row != rows.end() && col != cols.end())
            chosen[{static_cast<Index>(row - rows.begin()), static_cast<Index>(col - cols.begin())}] = carried;
    }
    return write<Offset>(static_cast<Index>(rows.size()), static_cast<Index>(cols.size()), chosen, arrays.size());
}

template <class Offset>
std::vector<Cell> cells(const PatternView<Offset>& p) {
    std::vector<Cell> result;
    for (const auto& [row, col] : places(p))
        result.push_back(static_cast<Cell>(row) * static_cast<Cell>(p.cols) + static_cast<Cell>(col));
    return result;
}

template <class Offset>
std::vector<Cell> missing(const PatternView<Offset>& p) {
    const std::vector<Cell> taken = cells(p);
    const std::set<Cell> existing(taken.begin(), taken.end());
    std::vector<Cell> result;
    for (Cell cell = 0; cell < p.cells(); ++cell)
        if (existing.count(cell) == 0) result.push_back(cell);
    return result;
}

std::vector<std::uint8_t> drop_by_sign(const std::vector<float>& values, std::size_t k_positive, std::size_t k_negative,
                                       bool drop_zeros) {
    std::vector<std::uint8_t> mask(values.size(), 1);
    const auto positive = by_magnitude(values, [](float v) { return v > 0; });
    const auto negative = by_magnitude(values, [](float v) { return v < 0; });
    for (std::size_t r = 0; r < k_positive; ++r) mask[positive[r]] = 0;
    for (std::size_t r = 0; r < k_negative; ++r) mask[negative[r]] = 0;
    for (std::size_t k = 0; k < values.size(); ++k)
        if (drop_zeros && values[k] == 0) mask[k] = 0;
    return mask;
}

std::vector<std::uint8_t> drop_smallest(const std::vector<float>& values, std::size_t k) {
    std::vector<std::uint8_t> mask(values.size(), 1);
    const auto all = by_magnitude(values, [](float) { return true; });
    for (std::size_t r = 0; r < k; ++r) mask[all[r]] = 0;
    return mask;
}

template <class Offset>
std::vector<float> incoming_strength(const PatternView<Offset>& p, const std::vector<float>& weights) {
    std::vector<double> sums(size_of(p.cols));
    std::size_t k = 0;
    for (const auto& place : places(p)) sums[size_of(place.second)] += std::fabs(weights[k++]);
    return std::vector<float>(sums.begin(), sums.end());
}

#define INSTANTIATE(Offset)                                                                                           \
    template Connections read(const PatternView<Offset>&, const std::vector<const float*>&);                          \
    template Carried<Offset> write<Offset>(Index, Index, const Connections&, std::size_t);                            \
    template Transposed<Offset> transpose(const PatternView<Offset>&);                                                \
    template Carried<Offset> rewire(const PatternView<Offset>&, const std::vector<std::uint8_t>&,                     \
                                    const std::vector<Cell>&, const std::vector<const float*>&,                       \
                                    const std::vector<const float*>&);                                                \
    template Carried<Offset> unite(const std::vector<PatternView<Offset>>&,                                           \
                                   const std::vector<std::vector<const float*>>&, double);                            \
    template std::vector<std::vector<float>> carry(const PatternView<Offset>&, const PatternView<Offset>&,            \
                                                   const std::vector<const float*>&);                                 \
    template Carried<Offset> select(const PatternView<Offset>&, const std::vector<Index>&, const std::vector<Index>&, \
                                    const std::vector<const float*>&);                                                \
    template std::vector<Cell> missing(const PatternView<Offset>&);                                                   \
    template std::vector<Cell> cells(const PatternView<Offset>&);                                                     \
    template std::vector<float> incoming_strength(const PatternView<Offset>&, const std::vector<float>&);
TRULYSPARSE_FOR_EACH_OFFSET(INSTANTIATE)
#undef INSTANTIATE

}  // namespace trulysparse::ref
