// SPDX-License-Identifier: BSD-3-Clause
// The pattern algebra and selection written to be read: sets, maps and sorts. The tests hold the fast ones against it.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "trulysparse/pattern.hpp"

namespace trulysparse::ref {

// (row, column) -> what the connection carries, one number for each array.
using Connections = std::map<std::pair<Index, Index>, std::vector<float>>;

template <class Offset>
Connections read(const PatternView<Offset>& p, const std::vector<const float*>& arrays);
template <class Offset>
Carried<Offset> write(Index rows, Index cols, const Connections& connections, std::size_t n_arrays);

template <class Offset>
Transposed<Offset> transpose(const PatternView<Offset>& p);
template <class Offset>
Carried<Offset> rewire(const PatternView<Offset>& p, const std::vector<std::uint8_t>& mask,
                       const std::vector<Cell>& grown, const std::vector<const float*>& arrays,
                       const std::vector<const float*>& fills);
template <class Offset>
Carried<Offset> unite(const std::vector<PatternView<Offset>>& patterns,
                      const std::vector<std::vector<const float*>>& arrays, double divisor);
template <class Offset>
std::vector<std::vector<float>> carry(const PatternView<Offset>& from, const PatternView<Offset>& onto,
                                      const std::vector<const float*>& arrays);
template <class Offset>
Carried<Offset> select(const PatternView<Offset>& p, const std::vector<Index>& rows, const std::vector<Index>& cols,
                       const std::vector<const float*>& arrays);
template <class Offset>
std::vector<Cell> missing(const PatternView<Offset>& p);  // every cell it does not have, ascending
template <class Offset>
std::vector<Cell> cells(const PatternView<Offset>& p);

std::vector<std::uint8_t> drop_by_sign(const std::vector<float>& values, std::size_t k_positive, std::size_t k_negative,
                                       bool drop_zeros);
std::vector<std::uint8_t> drop_smallest(const std::vector<float>& values, std::size_t k);
template <class Offset>
std::vector<float> incoming_strength(const PatternView<Offset>& p, const std::vector<float>& weights);

}  // namespace trulysparse::ref
