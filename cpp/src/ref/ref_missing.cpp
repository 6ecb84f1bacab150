// SPDX-License-Identifier: BSD-3-Clause
#include "ref/ref_missing.hpp"

#include <algorithm>
#include <cmath>

namespace trulysparse::ref {

Matrix gradient(const Matrix& x, const Matrix& dy) {
    Matrix g(x.rows, dy.rows);
    for (Index i = 0; i < x.rows; ++i)
        for (Index j = 0; j < dy.rows; ++j)
            for (Index b = 0; b < x.cols; ++b) g(i, j) += x(i, b) * dy(j, b);
    return g;
}

template <class Offset>
std::vector<Cell> top_missing(const PatternView<Offset>& p, const std::vector<std::uint8_t>& mask, const Matrix& values,
                              std::uint64_t k) {
    std::vector<bool> exists(p.cells());
    for (Index i = 0; i < p.rows; ++i)
        for (Offset c = p.row_ptr[i]; c < p.row_ptr[i + 1]; ++c)
            if (mask.empty() || mask[static_cast<std::size_t>(c)])
                exists[static_cast<std::size_t>(i) * static_cast<std::size_t>(p.cols) +
                       static_cast<std::size_t>(p.col_idx[c])] = true;
    std::vector<Cell> cells;
    for (Cell cell = 0; cell < p.cells(); ++cell)
        if (!exists[cell]) cells.push_back(cell);
    std::stable_sort(cells.begin(), cells.end(),
                     [&](Cell a, Cell b) { return std::fabs(values.values[a]) > std::fabs(values.values[b]); });
    if (cells.size() > k) cells.resize(k);
    std::sort(cells.begin(), cells.end());
    return cells;
}

template std::vector<Cell> top_missing(const PatternView<std::int32_t>&, const std::vector<std::uint8_t>&,
                                       const Matrix&, std::uint64_t);
template std::vector<Cell> top_missing(const PatternView<std::int64_t>&, const std::vector<std::uint8_t>&,
                                       const Matrix&, std::uint64_t);

}  // namespace trulysparse::ref
