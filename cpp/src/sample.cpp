// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/sample.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "blocks.hpp"
#include "cells.hpp"
#include "elementary.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

using std::to_string;

// Calls visit(column) for the cells of a row that exist; inverse_log = 1 / ln(1 - density), 0 for density 1.
template <class Visit>
void walk_row(std::uint64_t row, Index cols, double inverse_log, const Stream& stream, Visit visit) {
    Block block{};
    std::int64_t col = 0;
    // Skip t of a row is half t % 2 of draw row << 32 | t / 2.
    for (std::uint64_t t = 0;; ++t) {
        if (t % 2 == 0) block = draw(stream, row << 32 | t / 2);
        const double u = 1.0 - static_cast<double>(word64(block, static_cast<int>(t % 2)) >> 11) * 0x1p-53;
        const double skip = portable_log(u) * inverse_log;
        if (!(skip < static_cast<double>(cols - col))) return;
        col += static_cast<std::int64_t>(skip);
        visit(static_cast<Index>(col));
        if (++col == cols) return;
    }
}

// out[k] = the value of cells[k], whose scale is scale(k).
template <class Scale>
void values_at(const Cell* cells, std::int64_t n, Distribution distribution, Scale scale, const Stream& stream,
               float* out) {
    if (distribution == Distribution::normal) {
        for (std::int64_t k = 0; k < n; ++k) out[k] = normal2(draw(stream, cells[k]))[0] * scale(k);
        return;
    }
    constexpr std::int64_t room = 64;
    std::uint64_t words[room];
    for (std::int64_t begin = 0; begin < n; begin += room) {
        const std::int64_t here = std::min(room, n - begin);
        draw_words(stream, cells + begin, here, words);
        for (std::int64_t k = 0; k < here; ++k)
            out[begin + k] = (2.0f * uniform24(static_cast<std::uint32_t>(words[k])) - 1.0f) * scale(begin + k);
    }
}

void check_scale(std::uint64_t n_scale, Index cols) {
    if (n_scale != 1 && n_scale != static_cast<std::uint64_t>(cols))
        throw InvalidArgument("draw_values: " + to_string(n_scale) + " scales for " + to_string(cols) +
                              " columns; give one number, or one for each column");
}

}  // namespace

template <class Offset>
Pattern<Offset> sample_bernoulli(Index rows, Index cols, double density, const Stream& stream, int threads) {
    if (!(density >= 0.0 && density <= 1.0))
        throw InvalidArgument("sample_bernoulli: density " + to_string(density) +
                              " is not a probability; 0..1 allowed");
    check_holdable<Offset>(rows, cols, 0);
    const double per_row = density * static_cast<double>(cols), expected = per_row * static_cast<double>(rows);
    if (expected / 2 > static_cast<double>(std::numeric_limits<Offset>::max()))  // hopeless: say so before sampling
        check_holdable<Offset>(rows, cols, static_cast<std::uint64_t>(expected));
    const double inverse_log = density == 0.0 || density == 1.0 ? 0.0 : 1.0 / portable_log1m(density);

    const Chunks chunks(density == 0.0 || cols == 0 ? 0 : rows, 1 + static_cast<std::int64_t>(32768 / (2 + per_row)));
    struct Part {
        std::vector<Index> cols, row_counts;
    };
    std::vector<Part> parts(size_of(chunks.count()));
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        Part& part = parts[size_of(c)];
        const std::int64_t n = chunks.end(c) - chunks.begin(c);
        const double guess = per_row * static_cast<double>(n);
        part.cols.reserve(static_cast<std::size_t>(guess + 5 * std::sqrt(guess) + 16));
        part.row_counts.resize(size_of(n));
        for (std::int64_t i = chunks.begin(c); i < chunks.end(c); ++i) {
            const std::size_t before = part.cols.size();
            walk_row(static_cast<std::uint64_t>(i), cols, inverse_log, stream,
                     [&](Index j) { part.cols.push_back(j); });
            part.row_counts[size_of(i - chunks.begin(c))] = static_cast<Index>(part.cols.size() - before);
        }
    });
    std::vector<std::int64_t> before;
    for (const Part& part : parts) before.push_back(static_cast<std::int64_t>(part.cols.size()));
    const auto total = static_cast<std::uint64_t>(sums_before(before));
    check_holdable<Offset>(rows, cols, total);

    Pattern<Offset> out{rows, cols, Buffer<Offset>(size_of(rows) + 1), Buffer<Index>(total)};
    out.row_ptr[0] = 0;
    if (chunks.count() == 0) std::fill(out.row_ptr.begin(), out.row_ptr.end(), Offset{0});
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        Part part;
        std::swap(part, parts[size_of(c)]);
        std::int64_t at = before[size_of(c)];
        std::copy(part.cols.begin(), part.cols.end(), out.col_idx.data() + at);
        Offset* row_end = out.row_ptr.data() + chunks.begin(c) + 1;
        for (const Index count : part.row_counts) *row_end++ = static_cast<Offset>(at += count);
    });
    return out;
}

template <class Offset>
Pattern<Offset> sample_with_replacement(Index rows, Index cols, std::uint64_t draws, const Stream& stream,
                                        int threads) {
    check_holdable<Offset>(rows, cols, 0);
    const std::uint64_t cells = static_cast<std::uint64_t>(rows) * static_cast<std::uint64_t>(cols);
    if (cells == 0 && draws > 0)
        throw InvalidArgument("sample_with_replacement: " + to_string(draws) + " draws from a layer of " +
                              to_string(rows) + " x " + to_string(cols) + ", which has no cells; ask for none");
    const Buffer<Cell> drawn = draw_sorted(stream, 0, draws, cells, threads);
    return from_cells<Offset>(rows, cols, drawn.data(), drawn.size(), threads);
}

template <class Offset>
Pattern<Offset> sample_exact(Index rows, Index cols, std::uint64_t count, const Stream& stream, int threads) {
    check_holdable<Offset>(rows, cols, count);
    const Buffer<Offset> row_ptr(size_of(rows) + 1, Offset{0});
    const Buffer<Cell> drawn =
        draw_missing<Offset>(PatternView<Offset>{rows, cols, row_ptr.data(), nullptr}, nullptr, count, stream, threads);
    return from_cells<Offset>(rows, cols, drawn.data(), drawn.size(), threads);
}

void draw_values(const Cell* cells, std::uint64_t n, Index cols, Distribution distribution, const float* scale,
                 std::uint64_t n_scale, const Stream& stream, float* out, int threads) {
    check_scale(n_scale, cols);
    if (cols == 0 && n > 0)
        throw InvalidArgument("draw_values: " + to_string(n) +
                              " cells of a layer without columns, which has none; check the number of columns");
    const Chunks chunks(static_cast<std::int64_t>(n), 4096);
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        const std::int64_t begin = chunks.begin(c), count = chunks.end(c) - begin;
        const Cell* const here = cells + begin;
        if (n_scale == 1)
            values_at(here, count, distribution, [&](std::int64_t) { return scale[0]; }, stream, out + begin);
        else
            values_at(
                here, count, distribution, [&](std::int64_t k) { return scale[here[k] % n_scale]; }, stream,
                out + begin);
    });
}

template <class Offset>
void draw_values(const PatternView<Offset>& p, Distribution distribution, const float* scale, std::uint64_t n_scale,
                 const Stream& stream, float* out, int threads) {
    check_scale(n_scale, p.cols);
    const auto blocks = row_blocks(p.row_ptr, p.rows);
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        constexpr std::int64_t room = 1024;  // connections of several rows together: rows may be short
        Cell cells[room];
        Index i = blocks.begin(b);
        const auto last = static_cast<std::int64_t>(p.row_ptr[blocks.end(b)]);
        for (auto k = static_cast<std::int64_t>(p.row_ptr[i]); k < last;) {
            const std::int64_t here = std::min(room, last - k);
            const Index* const cols = p.col_idx + k;
            for (std::int64_t u = 0; u < here; ++i) {
                const Cell base = static_cast<Cell>(i) * static_cast<Cell>(p.cols);
                const std::int64_t row_end = static_cast<std::int64_t>(p.row_ptr[i + 1]) - k,
                                   end = std::min(row_end, here);
                for (; u < end; ++u) cells[u] = base + static_cast<Cell>(cols[u]);
                if (row_end > here) break;  // the rest of this row comes next
            }
            const auto scale_of = [&](std::int64_t u) { return scale[n_scale == 1 ? 0 : cols[u]]; };
            values_at(cells, here, distribution, scale_of, stream, out + k);
            k += here;
        }
    });
}

#define INSTANTIATE(Offset)                                                                                         \
    template Pattern<Offset> sample_bernoulli(Index, Index, double, const Stream&, int);                            \
    template Pattern<Offset> sample_with_replacement(Index, Index, std::uint64_t, const Stream&, int);              \
    template Pattern<Offset> sample_exact(Index, Index, std::uint64_t, const Stream&, int);                         \
    template void draw_values(const PatternView<Offset>&, Distribution, const float*, std::uint64_t, const Stream&, \
                              float*, int);
TRULYSPARSE_FOR_EACH_OFFSET(INSTANTIATE)
#undef INSTANTIATE

}  // namespace trulysparse
