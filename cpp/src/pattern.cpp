// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/pattern.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <string>

#include "blocks.hpp"
#include "cells.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

// Below, two levels cost more than they save, and threads that write close to each other more than one alone.
constexpr std::int64_t kSerialTranspose = 1 << 18;

using std::to_string;

Cell cells_before(Index row, Index cols) { return static_cast<Cell>(row) * static_cast<Cell>(cols); }

std::string place(Cell cell, Index cols) {
    const auto width = static_cast<Cell>(cols);
    return "(row " + to_string(cell / width) + ", column " + to_string(cell % width) + ")";
}

// Sorted, distinct and inside a layer of this shape, or InvalidArgument about the first cell that is not.
void check_cells(Index rows, Index cols, const Cell* cells, std::uint64_t n, const char* what, int threads) {
    const Cell limit = cells_before(rows, cols);
    const Chunks chunks(static_cast<std::int64_t>(n), 65536);
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        for (std::int64_t k = chunks.begin(c); k < chunks.end(c); ++k) {
            if (cells[k] >= limit)
                throw InvalidArgument(std::string(what) + " cell " + to_string(cells[k]) + " at position " +
                                      to_string(k) + " is outside a layer of " + to_string(rows) + " x " +
                                      to_string(cols) + "; cells are row * columns + column, below " +
                                      to_string(limit));
            if (k > 0 && cells[k - 1] >= cells[k])
                throw InvalidArgument(std::string(what) + " cell " + place(cells[k], cols) + " at position " +
                                      to_string(k) + " does not come after " + place(cells[k - 1], cols) +
                                      "; sort the cells and remove duplicates");
        }
    });
}

void check_ascending(const Index* list, Index n, Index limit, const char* what) {
    if (n < 0) throw InvalidArgument("select: " + to_string(n) + " " + what + " asked for; a count is at least 0");
    for (Index i = 0; i < n; ++i) {
        if (list[i] < 0 || list[i] >= limit)
            throw InvalidArgument(std::string("select: ") + what + " " + to_string(list[i]) + " at position " +
                                  to_string(i) + " is outside 0.." + to_string(static_cast<std::int64_t>(limit) - 1));
        if (i > 0 && list[i] <= list[i - 1])
            throw InvalidArgument(std::string("select: ") + what + " " + to_string(list[i]) + " at position " +
                                  to_string(i) + " does not come after " + to_string(list[i - 1]) +
                                  "; give an ascending list without duplicates");
    }
}

template <class Offset>
Carried<Offset> make_result(Index rows, Index cols, std::uint64_t nnz, std::size_t n_arrays) {
    check_holdable<Offset>(rows, cols, nnz);
    Carried<Offset> out{{rows, cols, Buffer<Offset>(size_of(rows) + 1), Buffer<Index>(nnz)}, {}};
    out.pattern.row_ptr[0] = 0;
    for (std::size_t a = 0; a < n_arrays; ++a) out.arrays.emplace_back(nnz);
    return out;
}

// How many of n bytes are not zero; narrow sums, so that they are made in vectors.
std::int64_t count_marked(const std::uint8_t* mask, std::int64_t n) {
    std::int64_t total = 0;
    for (std::int64_t begin = 0, end; begin < n; begin = end) {
        end = std::min<std::int64_t>(begin + (1 << 20), n);
        std::int32_t here = 0;
        for (std::int64_t k = begin; k < end; ++k) here += mask[k] != 0;
        total += here;
    }
    return total;
}

// Appends connections to a result from a given position on, and what they carry, a small room at a time.
template <class Offset>
class Writer {
public:
    Writer(Carried<Offset>& out, std::int64_t position, const std::vector<const float*>& arrays,
           const std::vector<const float*>& fills)
        : out_(out), position_(position), arrays_(arrays), fills_(fills) {}

    // source: the connection's old position. Not written at all unless wanted.
    void push(Index col, std::int64_t source, bool wanted = true) {
        if (used_ == kRoom) flush();
        cols_[used_] = col;
        sources_[used_] = source;
        used_ += wanted;
    }
    // A row's old connections [k, end) that the mask keeps and its grown ones [g, g_end), ascending; the latter's
    // columns are their cells minus `base`. False if a connection that is kept is among the grown.
    bool merge(const Index* cols, const std::uint8_t* mask, std::int64_t k, std::int64_t end, const Cell* grown,
               std::int64_t g, std::int64_t g_end, Cell base) {
        bool clash = false;
        while (k < end || g < g_end) {
            if (used_ == kRoom) flush();
            std::size_t used = used_, n_grown = n_grown_;  // locals, so that they stay in registers
            // Which comes next is a matter of chance: no branch depends on it.
            const auto step = [&](Index old, Index fresh) {
                const bool kept = !mask || mask[k], is_grown = fresh < old;
                clash |= kept && fresh == old;
                cols_[used] = std::min(fresh, old);
                sources_[used] = k;
                grown_[n_grown] = g;
                grown_at_[n_grown] = static_cast<std::uint32_t>(used);
                n_grown += is_grown;
                used += is_grown || kept;
                g += is_grown;
                k += !is_grown;
                return is_grown;
            };
            if (k < end && g < g_end) {
                Index old = cols[k], fresh = static_cast<Index>(grown[g] - base);
                while (used < kRoom && k + 1 < end && g + 1 < g_end) {
                    // Both that may come next are loaded before it is known which one does.
                    const Index next_old = cols[k + 1], next_fresh = static_cast<Index>(grown[g + 1] - base);
                    const Index is_grown = -static_cast<Index>(step(old, fresh));
                    old = (old & is_grown) | (next_old & ~is_grown);
                    fresh = (next_fresh & is_grown) | (fresh & ~is_grown);
                }
                while (used < kRoom && k < end && g < g_end) step(cols[k], static_cast<Index>(grown[g] - base));
            }
            if (g == g_end)
                for (; used < kRoom && k < end; ++k) {
                    cols_[used] = cols[k];
                    sources_[used] = k;
                    used += !mask || mask[k];
                }
            if (k == end)
                for (; used < kRoom && g < g_end; ++g) {
                    cols_[used] = static_cast<Index>(grown[g] - base);
                    sources_[used] = 0;
                    grown_[n_grown] = g;
                    grown_at_[n_grown++] = static_cast<std::uint32_t>(used++);
                }
            used_ = used;
            n_grown_ = n_grown;
        }
        return !clash;
    }
    std::int64_t position() const { return position_ + static_cast<std::int64_t>(used_); }
    void flush() {
        if (used_ > 0) std::memcpy(out_.pattern.col_idx.data() + position_, cols_, used_ * sizeof(Index));
        for (std::size_t a = 0; a < arrays_.size(); ++a) {
            float* to = out_.arrays[a].data() + position_;
            const float* old = arrays_[a];
            const float* fill = fills_.empty() ? nullptr : fills_[a];
            if (n_grown_ < used_)  // else there may be no old position 0
                for (std::size_t u = 0; u < used_; ++u) to[u] = old[sources_[u]];
            for (std::size_t g = 0; g < n_grown_; ++g) to[grown_at_[g]] = fill ? fill[grown_[g]] : 0.0f;
        }
        position_ += static_cast<std::int64_t>(used_);
        used_ = n_grown_ = 0;
    }

private:
    static constexpr std::size_t kRoom = 1024;
    Carried<Offset>& out_;
    std::int64_t position_;
    const std::vector<const float*>& arrays_;
    const std::vector<const float*>& fills_;
    std::size_t used_ = 0, n_grown_ = 0;
    Index cols_[kRoom];
    std::int64_t sources_[kRoom], grown_[kRoom + 1];  // one more: where what is not wanted goes
    std::uint32_t grown_at_[kRoom + 1];
};

// Says which of a row's grown cells, from position g on, is the first that is a kept connection.
template <class Offset>
[[noreturn]] void throw_clash(const PatternView<Offset>& p, const std::uint8_t* mask, Index row, const Cell* grown,
                              std::int64_t g) {
    const Cell base = cells_before(row, p.cols);
    auto k = static_cast<std::int64_t>(p.row_ptr[row]);
    while (grown[g] != base + static_cast<Cell>(p.col_idx[k]) || (mask && !mask[k]))
        if (grown[g] < base + static_cast<Cell>(p.col_idx[k]))
            ++g;
        else
            ++k;
    throw InvalidArgument("rewire: grown cell " + place(grown[g], p.cols) + " at position " + to_string(g) +
                          " is a connection that is kept; grow only missing cells");
}

// The cells that a pattern, or the part of it that a mask keeps, does not have: by rank, row by row.
template <class Offset>
class FreeCells {
public:
    FreeCells(const PatternView<Offset>& p, const std::uint8_t* mask, int threads) : p_(p), mask_(mask) {
        if (!mask) return;
        kept_before_ = Buffer<Offset>(size_of(p.rows) + 1);
        kept_before_[0] = 0;
        const auto blocks = row_blocks(p.row_ptr, p.rows, 16384);
        parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
            for (Index i = blocks.begin(b), end = blocks.end(b); i < end; ++i)
                kept_before_[size_of(i) + 1] = static_cast<Offset>(
                    count_marked(mask + p.row_ptr[i], static_cast<std::int64_t>(p.row_ptr[i + 1] - p.row_ptr[i])));
        });
        for (std::size_t i = 1; i < kept_before_.size(); ++i)
            kept_before_[i] = static_cast<Offset>(kept_before_[i] + kept_before_[i - 1]);
    }
    // How many stand in the rows before this one.
    std::uint64_t before(Index row) const {
        return cells_before(row, p_.cols) -
               static_cast<std::uint64_t>(mask_ ? kept_before_[size_of(row)] : p_.row_ptr[row]);
    }
    std::uint64_t count() const { return before(p_.rows); }

    // The cells of ascending ranks [first, last), all in this row, to `out`; `columns` is scratch.
    void find(Index row, const std::uint64_t* first, const std::uint64_t* last, std::vector<Index>& columns,
              Cell* out) const {
        if (first == last) return;
        // columns[m] = how many free cells of the row come before its m-th connection, in a power of two of places.
        const auto begin = static_cast<std::int64_t>(p_.row_ptr[row]),
                   end = static_cast<std::int64_t>(p_.row_ptr[row + 1]);
        std::size_t places = 1;
        while (places <= size_of(end - begin)) places *= 2;
        if (columns.size() < places) columns.resize(places);
        Index m = 0;
        for (std::int64_t k = begin; k < end; ++k) {
            columns[size_of(m)] = p_.col_idx[k] - m;
            m += !mask_ || mask_[k] != 0;
        }
        while (places / 2 > size_of(m)) places /= 2;
        std::fill(columns.begin() + m, columns.begin() + static_cast<std::ptrdiff_t>(places),
                  std::numeric_limits<Index>::max());
        const std::uint64_t base = before(row);
        const Cell row_base = cells_before(row, p_.cols);
        const Index* const table = columns.data();
        for (; first < last; ++first, ++out) {
            const auto local = static_cast<Index>(*first - base);
            std::size_t at = 0;  // found without branches, which nothing could foretell
            for (std::size_t step = places / 2; step > 0; step /= 2)
                at += step & (std::size_t{0} - static_cast<std::size_t>(table[at + step - 1] <= local));
            *out = row_base + static_cast<Cell>(local) + at;
        }
    }

private:
    const PatternView<Offset>& p_;
    const std::uint8_t* mask_;
    Buffer<Offset> kept_before_;
};

// Exactly `count` distinct numbers in [0, bound), sorted, as a uniformly random set; count well below bound.
Buffer<std::uint64_t> draw_distinct(std::uint64_t count, std::uint64_t bound, const Stream& stream, int threads) {
    Buffer<std::uint64_t> drawn = draw_sorted(stream, 0, count, bound, threads);
    if (drawn.size() == count) return drawn;
    // Numbers are drawn one after the other until enough are distinct; a round never draws more than are missing.
    std::vector<std::uint64_t> extra, merged;
    std::uint64_t next = count;
    while (drawn.size() + extra.size() < count) {
        const std::uint64_t missing = count - drawn.size() - extra.size();
        Buffer<std::uint64_t> fresh = draw_sorted(stream, next, missing, bound, threads);
        next += missing;
        std::uint64_t* end = fresh.end();
        auto remove_known = [&](const std::uint64_t* known, std::size_t n_known) {
            std::int64_t at = 0;
            const auto n = static_cast<std::int64_t>(n_known);
            end = std::remove_if(fresh.begin(), end, [&](std::uint64_t value) {
                at = gallop(at, n, [&](std::int64_t i) { return known[i] >= value; });
                return at < n && known[at] == value;
            });
        };
        remove_known(drawn.data(), drawn.size());
        remove_known(extra.data(), extra.size());
        merged.clear();
        std::merge(extra.begin(), extra.end(), fresh.begin(), end, std::back_inserter(merged));
        extra.swap(merged);
    }
    Buffer<std::uint64_t> out(count);
    std::merge(drawn.begin(), drawn.end(), extra.begin(), extra.end(), out.begin());
    return out;
}

// Where the second index is written to, and what is carried into its order: positions, or the values that stand there.
template <class Offset, class Payload>
struct SecondIndex {
    Offset* col_ptr;
    Index* row_idx;  // or nullptr: not wanted
    Payload* carried;
};

template <class Offset, class Payload, class At>
void transpose_small(const PatternView<Offset>& p, const SecondIndex<Offset, Payload>& t, const At& at) {
    // col_ptr[j + 1] first counts column j, then says where its next connection goes, and so ends as it should.
    std::fill_n(t.col_ptr, size_of(p.cols) + 1, Offset{0});
    const Offset nnz = p.nnz();
    for (Offset k = 0; k < nnz; ++k) ++t.col_ptr[size_of(p.col_idx[k]) + 1];
    Offset before = 0;
    for (std::size_t j = 1; j <= size_of(p.cols); ++j) {
        const Offset count = t.col_ptr[j];
        t.col_ptr[j] = before;
        before = static_cast<Offset>(before + count);
    }
    for (Index i = 0; i < p.rows; ++i)
        for (Offset k = p.row_ptr[i]; k < p.row_ptr[i + 1]; ++k) {
            const auto to = static_cast<std::size_t>(t.col_ptr[size_of(p.col_idx[k]) + 1]++);
            if (t.row_idx) t.row_idx[to] = i;
            t.carried[to] = at(k);
        }
}

}  // namespace

template <class Offset>
void check_holdable(std::int64_t rows, std::int64_t cols, std::uint64_t nnz) {
    constexpr std::int64_t kMost = std::numeric_limits<Index>::max();
    if (rows < 0 || cols < 0 || rows > kMost || cols > kMost)
        throw InvalidArgument("a layer of " + to_string(rows) + " x " + to_string(cols) +
                              " neurons cannot be held: each side is 0.." + to_string(kMost) +
                              "; split the layer or make it narrower");
    constexpr auto kPositions = static_cast<std::uint64_t>(std::numeric_limits<Offset>::max());
    if (nnz > kPositions)
        throw InvalidArgument("a layer of " + to_string(rows) + " x " + to_string(cols) + " neurons with " +
                              to_string(nnz) + " connections cannot be held by " + to_string(8 * sizeof(Offset)) +
                              "-bit positions, which reach " + to_string(kPositions) +
                              "; use wider positions or a lower density");
}

template <class Offset>
void validate(const PatternView<Offset>& p, std::uint64_t nnz) {
    check_holdable<Offset>(p.rows, p.cols, nnz);
    if (p.row_ptr[0] != 0)
        throw InvalidArgument("row_ptr starts at " + to_string(p.row_ptr[0]) + " (row 0); it must start at 0");
    for (Index i = 0; i < p.rows; ++i)
        if (p.row_ptr[i + 1] < p.row_ptr[i])
            throw InvalidArgument("row_ptr falls from " + to_string(p.row_ptr[i]) + " to " +
                                  to_string(p.row_ptr[i + 1]) + " at row " + to_string(i) +
                                  "; it must never fall: check that it belongs to this layer");
    if (static_cast<std::uint64_t>(p.nnz()) != nnz)
        throw InvalidArgument("row_ptr ends at " + to_string(p.nnz()) + " (row " + to_string(p.rows) +
                              ") but col_idx has " + to_string(nnz) + " entries; the two must agree");
    for (Index i = 0; i < p.rows; ++i) {
        Index before = -1;
        for (auto k = static_cast<std::int64_t>(p.row_ptr[i]); k < p.row_ptr[i + 1]; ++k) {
            const Index col = p.col_idx[k];
            if (col < 0 || col >= p.cols)
                throw InvalidArgument("row " + to_string(i) + " has column " + to_string(col) + "; columns are 0.." +
                                      to_string(static_cast<std::int64_t>(p.cols) - 1));
            if (col <= before)
                throw InvalidArgument("row " + to_string(i) + " has column " + to_string(col) + " after " +
                                      to_string(before) + (col == before ? ", a duplicate" : "") +
                                      "; columns must ascend: sort each row and sum duplicates");
            before = col;
        }
    }
}

template <class Offset>
void check_index_arrays(const IndexArrays<Offset>& index, std::uint64_t nnz, int threads) {
    const Offset* ptr = index.ptr;
    if (ptr[0] != 0 || ptr[index.rows] < 0 || static_cast<std::uint64_t>(ptr[index.rows]) != nnz)
        throw InvalidArgument(std::string(index.ptr_name) +
                              " must begin with 0 and end with the number of connections (" + to_string(nnz) +
                              "), got " + to_string(ptr[0]) + " and " + to_string(ptr[index.rows]) +
                              "; take it from transpose of this pattern");
    const Chunks rows(index.rows, 65536), places(static_cast<std::int64_t>(nnz), 65536);
    parallel_for(rows.count(), threads, [&](std::int64_t c, int) {
        for (std::int64_t i = rows.begin(c); i < rows.end(c); ++i)
            if (ptr[i + 1] < ptr[i])
                throw InvalidArgument(std::string(index.ptr_name) + " falls from " + to_string(ptr[i]) + " to " +
                                      to_string(ptr[i + 1]) + " at position " + to_string(i) +
                                      "; it must never fall: check that it belongs to this layer");
    });
    const auto check_range = [&](const auto* values, std::uint64_t limit, const char* name) {
        if (values == nullptr) return;
        parallel_for(places.count(), threads, [&](std::int64_t c, int) {
            for (std::int64_t k = places.begin(c); k < places.end(c); ++k)
                if (values[k] < 0 || static_cast<std::uint64_t>(values[k]) >= limit)
                    throw InvalidArgument(std::string(name) + " holds " + to_string(values[k]) + " at position " +
                                          to_string(k) + "; numbers below " + to_string(limit) +
                                          " are allowed: check that it belongs to this layer");
        });
    };
    check_range(index.places, static_cast<std::uint64_t>(index.limit), index.places_name);
    check_range(index.perm, nnz, "perm");
}

// A stable counting sort by column in two levels: row blocks scatter into buckets of columns, which sort themselves.
template <class Offset, class Payload, class At>
void transpose_to(const PatternView<Offset>& p, const SecondIndex<Offset, Payload>& t, const At& at, int threads) {
    const auto nnz = static_cast<std::int64_t>(p.nnz());
    if (nnz <= kSerialTranspose) return transpose_small(p, t, at);

    const int shift = bucket_shift(static_cast<std::uint64_t>(p.cols),
                                   static_cast<std::uint64_t>(std::clamp<std::int64_t>(nnz / 16384, 16, 2048)));
    const std::size_t n_buckets = size_of((p.cols - 1) >> shift) + 1;
    const auto blocks = row_blocks(p.row_ptr, p.rows, 32768, 256);
    const std::size_t n_blocks = size_of(blocks.count());
    std::vector<std::int64_t> places(n_blocks * n_buckets);  // block-major: first counts, then where to write
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        std::int64_t* counts = &places[size_of(b) * n_buckets];
        const auto end = static_cast<std::int64_t>(p.row_ptr[blocks.end(b)]);
        for (auto k = static_cast<std::int64_t>(p.row_ptr[blocks.begin(b)]); k < end; ++k)
            ++counts[p.col_idx[k] >> shift];
    });
    std::vector<std::int64_t> bucket_begin(n_buckets + 1);
    std::int64_t total = 0;
    for (std::size_t u = 0; u < n_buckets; ++u) {
        bucket_begin[u] = total;
        for (std::size_t b = 0; b < n_blocks; ++b) total += std::exchange(places[b * n_buckets + u], total);
    }
    bucket_begin[n_buckets] = total;

    struct Entry {
        Index col, row;
        Payload carried;
    };
    Buffer<Entry> entries(size_of(nnz));
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        std::int64_t* next = &places[size_of(b) * n_buckets];
        for (Index i = blocks.begin(b), end = blocks.end(b); i < end; ++i)
            for (Offset k = p.row_ptr[i]; k < p.row_ptr[i + 1]; ++k) {
                const Index col = p.col_idx[k];
                entries[size_of(next[col >> shift]++)] = {col, i, at(k)};
            }
    });
    t.col_ptr[0] = 0;
    parallel_for(static_cast<std::int64_t>(n_buckets), threads, [&](std::int64_t u, int) {
        const Entry* const begin = entries.data() + bucket_begin[size_of(u)];
        const Entry* const end = entries.data() + bucket_begin[size_of(u) + 1];
        const std::int64_t first = u << shift, last = std::min<std::int64_t>(p.cols, (u + 1) << shift);
        Offset* const next = t.col_ptr + 1;  // as in transpose_small, for this bucket's columns
        std::fill(next + first, next + last, Offset{0});
        for (const Entry* e = begin; e < end; ++e) ++next[e->col];
        auto before = static_cast<Offset>(bucket_begin[size_of(u)]);
        for (std::int64_t j = first; j < last; ++j) {
            const Offset count = next[j];
            next[j] = before;
            before = static_cast<Offset>(before + count);
        }
        for (const Entry* e = begin; e < end; ++e) {
            const auto to = static_cast<std::size_t>(next[e->col]++);
            if (t.row_idx) t.row_idx[to] = e->row;
            t.carried[to] = e->carried;
        }
    });
}

template <class Offset>
Transposed<Offset> transpose(const PatternView<Offset>& p, int threads) {
    const std::size_t nnz = size_of(static_cast<std::int64_t>(p.nnz()));
    Transposed<Offset> t{Buffer<Offset>(size_of(p.cols) + 1), Buffer<Index>(nnz), Buffer<Offset>(nnz)};
    const SecondIndex<Offset, Offset> to{t.col_ptr.data(), t.row_idx.data(), t.perm.data()};
    transpose_to(p, to, [](Offset k) { return k; }, threads);
    return t;
}

template <class Offset>
TransposedValues<Offset> transpose_values(const PatternView<Offset>& p, const float* values, int threads) {
    const std::size_t nnz = size_of(static_cast<std::int64_t>(p.nnz()));
    TransposedValues<Offset> t{Buffer<Offset>(size_of(p.cols) + 1), Buffer<Index>(nnz), Buffer<float>(nnz)};
    const SecondIndex<Offset, float> to{t.col_ptr.data(), t.row_idx.data(), t.values.data()};
    transpose_to(p, to, [values](Offset k) { return values[k]; }, threads);
    return t;
}

template <class Offset>
void order_by_target(const PatternView<Offset>& p, const float* values, float* out, int threads) {
    Buffer<Offset> col_ptr(size_of(p.cols) + 1);  // sorting again is faster than looking each connection up
    const SecondIndex<Offset, float> to{col_ptr.data(), nullptr, out};
    transpose_to(p, to, [values](Offset k) { return values[k]; }, threads);
}

template <class Offset>
void count_by_target(const PatternView<Offset>& p, std::int64_t* out) {
    std::fill_n(out, size_of(p.cols), std::int64_t{0});
    const auto nnz = static_cast<std::int64_t>(p.nnz());
    for (std::int64_t k = 0; k < nnz; ++k) ++out[p.col_idx[k]];
}

template <class Offset>
Carried<Offset> rewire(const PatternView<Offset>& p, const std::uint8_t* mask, const Cell* grown, std::uint64_t n_grown,
                       const std::vector<const float*>& arrays, const std::vector<const float*>& fills, int threads) {
    if (!fills.empty() && fills.size() != arrays.size())
        throw InvalidArgument("rewire: " + to_string(fills.size()) + " fills for " + to_string(arrays.size()) +
                              " arrays; give one fill (or none) for each array");
    check_cells(p.rows, p.cols, grown, n_grown, "rewire: grown", threads);
    const auto blocks = row_blocks(p.row_ptr, p.rows, 8192);
    auto first_grown = [&](Index row) {
        return std::lower_bound(grown, grown + n_grown, cells_before(row, p.cols)) - grown;
    };
    std::vector<std::int64_t> before(size_of(blocks.count()));
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        const Index row = blocks.begin(b), row_end = blocks.end(b);
        const auto k = static_cast<std::int64_t>(p.row_ptr[row]), end = static_cast<std::int64_t>(p.row_ptr[row_end]);
        const std::int64_t kept = mask ? count_marked(mask + k, end - k) : end - k;
        before[size_of(b)] = kept + (first_grown(row_end) - first_grown(row));
    });
    const auto total = static_cast<std::uint64_t>(sums_before(before));
    Carried<Offset> out = make_result<Offset>(p.rows, p.cols, total, arrays.size());
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        const Index row = blocks.begin(b), row_end = blocks.end(b);
        std::int64_t g = first_grown(row);
        const std::int64_t g_end = first_grown(row_end);
        Writer<Offset> writer(out, before[size_of(b)], arrays, fills);
        for (Index i = row; i < row_end; ++i) {
            const Cell base = cells_before(i, p.cols), next_base = base + static_cast<Cell>(p.cols);
            const std::int64_t g_row = g;
            while (g < g_end && grown[g] < next_base) ++g;
            if (!writer.merge(p.col_idx, mask, p.row_ptr[i], p.row_ptr[i + 1], grown, g_row, g, base))
                throw_clash(p, mask, i, grown, g_row);
            out.pattern.row_ptr[size_of(i) + 1] = static_cast<Offset>(writer.position());
        }
        writer.flush();
    });
    return out;
}

template <class Offset>
Carried<Offset> keep(const PatternView<Offset>& p, const std::uint8_t* mask, const std::vector<const float*>& arrays,
                     int threads) {
    return rewire<Offset>(p, mask, nullptr, 0, arrays, {}, threads);
}

template <class Offset>
Carried<Offset> unite(const std::vector<PatternView<Offset>>& patterns,
                      const std::vector<std::vector<const float*>>& arrays, double divisor, int threads) {
    if (!(divisor > 0.0 && std::isfinite(divisor)))
        throw InvalidArgument("unite: sums cannot be divided by " + to_string(divisor) +
                              "; give a finite divisor above 0, e.g. the number of patterns for their mean");
    if (patterns.empty()) throw InvalidArgument("unite: no patterns given; give at least one");
    if (arrays.size() != patterns.size())
        throw InvalidArgument("unite: arrays of " + to_string(arrays.size()) + " patterns for " +
                              to_string(patterns.size()) + " patterns; give one list each");
    const Index rows = patterns[0].rows, cols = patterns[0].cols;
    const std::size_t n_patterns = patterns.size(), n_arrays = arrays[0].size();
    for (std::size_t s = 1; s < n_patterns; ++s) {
        if (patterns[s].rows != rows || patterns[s].cols != cols)
            throw InvalidArgument("unite: pattern " + to_string(s) + " is " + to_string(patterns[s].rows) + " x " +
                                  to_string(patterns[s].cols) + " but pattern 0 is " + to_string(rows) + " x " +
                                  to_string(cols) + "; all must have one shape");
        if (arrays[s].size() != n_arrays)
            throw InvalidArgument("unite: pattern " + to_string(s) + " has " + to_string(arrays[s].size()) +
                                  " arrays but pattern 0 has " + to_string(n_arrays) + "; all need as many");
    }
    auto work_before = [&](Index i) {
        std::int64_t work = 2 * static_cast<std::int64_t>(i);
        for (const auto& p : patterns) work += static_cast<std::int64_t>(p.row_ptr[i]);
        return work;
    };
    const RowBlocks<decltype(work_before)> blocks(rows, work_before);
    // A pattern that has the connection at hand, and where.
    struct Holder {
        std::size_t pattern;
        std::int64_t position;
    };
    // Calls visit(column, holders) over the union of row i, columns and holders ascending.
    auto merge_row = [&](Index i, std::vector<std::int64_t>& at, std::vector<Holder>& holders, auto visit) {
        for (std::size_t s = 0; s < n_patterns; ++s) at[s] = patterns[s].row_ptr[i];
        for (;;) {
            std::int64_t col = cols;
            for (std::size_t s = 0; s < n_patterns; ++s)
                if (at[s] < patterns[s].row_ptr[i + 1]) col = std::min<std::int64_t>(col, patterns[s].col_idx[at[s]]);
            if (col == cols) return;
            holders.clear();
            for (std::size_t s = 0; s < n_patterns; ++s)
                if (at[s] < patterns[s].row_ptr[i + 1] && patterns[s].col_idx[at[s]] == col)
                    holders.push_back({s, at[s]++});
            visit(static_cast<Index>(col), holders);
        }
    };
    std::vector<std::int64_t> before(size_of(blocks.count()));
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        std::vector<std::int64_t> at(n_patterns);
        std::vector<Holder> holders;
        std::int64_t count = 0;
        for (Index i = blocks.begin(b), end = blocks.end(b); i < end; ++i)
            merge_row(i, at, holders, [&](Index, const std::vector<Holder>&) { ++count; });
        before[size_of(b)] = count;
    });
    const auto total = static_cast<std::uint64_t>(sums_before(before));
    Carried<Offset> out = make_result<Offset>(rows, cols, total, n_arrays);
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        std::vector<std::int64_t> at(n_patterns);
        std::vector<Holder> holders;
        std::int64_t next = before[size_of(b)];
        for (Index i = blocks.begin(b), end = blocks.end(b); i < end; ++i) {
            merge_row(i, at, holders, [&](Index col, const std::vector<Holder>& having) {
                out.pattern.col_idx[size_of(next)] = col;
                for (std::size_t a = 0; a < n_arrays; ++a) {
                    // Begins with the first, not with 0: a sum of negative zeros is one.
                    double sum = static_cast<double>(arrays[having[0].pattern][a][having[0].position]);
                    for (std::size_t h = 1; h < having.size(); ++h)
                        sum += static_cast<double>(arrays[having[h].pattern][a][having[h].position]);
                    out.arrays[a][size_of(next)] = static_cast<float>(sum / divisor);
                }
                ++next;
            });
            out.pattern.row_ptr[size_of(i) + 1] = static_cast<Offset>(next);
        }
    });
    return out;
}

namespace {

// A row of `from` against a row of `onto`: its entries of all arrays, a small room at a time.
class RowCarrier {
public:
    RowCarrier(const std::vector<const float*>& arrays, const std::vector<float*>& out) : arrays_(arrays), out_(out) {}

    // cols[j..j_end) are the row's connections in `from`, wanted[k..k_end) in `onto`; both ascending.
    void carry(const Index* cols, std::int64_t j, std::int64_t j_end, const Index* wanted, std::int64_t k,
               std::int64_t k_end) {
        if (j_end - j == k_end - k && std::equal(cols + j, cols + j_end, wanted + k)) {
            if (k < k_end)
                for (std::size_t a = 0; a < out_.size(); ++a)
                    std::memcpy(out_[a] + k, arrays_[a] + j, size_of(k_end - k) * sizeof(float));
            return;
        }
        while (k < k_end) {
            const std::int64_t room = std::min(k + kRoom, k_end), first = k;
            // Which of both goes on is a matter of chance: no branch depends on it.
            while (j < j_end && k < room) {
                const Index old = cols[j], fresh = wanted[k];
                sources_[k - first] = old == fresh ? j : -1;
                k += old >= fresh;
                j += old <= fresh;
            }
            for (; k < room; ++k) sources_[k - first] = -1;
            for (std::size_t a = 0; a < out_.size(); ++a)
                for (std::int64_t u = 0; u < k - first; ++u)
                    out_[a][first + u] = sources_[u] < 0 ? 0.0f : arrays_[a][sources_[u]];
        }
    }

private:
    static constexpr std::int64_t kRoom = 1024;
    const std::vector<const float*>& arrays_;
    const std::vector<float*>& out_;
    std::int64_t sources_[kRoom];
};

}  // namespace

template <class Offset>
void carry(const PatternView<Offset>& from, const PatternView<Offset>& onto, const std::vector<const float*>& arrays,
           const std::vector<float*>& out, int threads) {
    if (from.rows != onto.rows || from.cols != onto.cols)
        throw InvalidArgument("carry: from a pattern of " + to_string(from.rows) + " x " + to_string(from.cols) +
                              " onto one of " + to_string(onto.rows) + " x " + to_string(onto.cols) +
                              "; both must have one shape");
    if (arrays.size() != out.size())
        throw InvalidArgument("carry: " + to_string(out.size()) + " arrays to write for " + to_string(arrays.size()) +
                              " to carry; give one for each");
    const auto work_before = [&](Index i) {
        return static_cast<std::int64_t>(from.row_ptr[i]) + static_cast<std::int64_t>(onto.row_ptr[i]) +
               2 * std::int64_t{i};
    };
    const RowBlocks<decltype(work_before)> blocks(onto.rows, work_before);
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        RowCarrier carrier(arrays, out);
        for (Index i = blocks.begin(b), end = blocks.end(b); i < end; ++i)
            carrier.carry(from.col_idx, from.row_ptr[i], from.row_ptr[i + 1], onto.col_idx, onto.row_ptr[i],
                          onto.row_ptr[i + 1]);
    });
}

template <class Offset>
Carried<Offset> select(const PatternView<Offset>& p, const Index* rows, Index n_rows, const Index* cols, Index n_cols,
                       const std::vector<const float*>& arrays, int threads) {
    if (rows) check_ascending(rows, n_rows, p.rows, "rows");
    if (cols) check_ascending(cols, n_cols, p.cols, "columns");
    if (!rows) n_rows = p.rows;
    if (!cols) n_cols = p.cols;
    std::vector<Index> new_col(cols ? size_of(p.cols) : 0, -1);
    if (cols)
        for (Index j = 0; j < n_cols; ++j) new_col[size_of(cols[j])] = j;
    auto new_column = [&](std::int64_t k) { return cols ? new_col[size_of(p.col_idx[k])] : p.col_idx[k]; };

    const Chunks chunks(n_rows, 256);
    std::vector<std::int64_t> before(size_of(chunks.count()));
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        std::int64_t count = 0;
        for (std::int64_t r = chunks.begin(c); r < chunks.end(c); ++r) {
            const std::int64_t i = rows ? rows[r] : r;
            for (auto k = static_cast<std::int64_t>(p.row_ptr[i]); k < p.row_ptr[i + 1]; ++k)
                count += new_column(k) >= 0;
        }
        before[size_of(c)] = count;
    });
    const auto total = static_cast<std::uint64_t>(sums_before(before));
    Carried<Offset> out = make_result<Offset>(n_rows, n_cols, total, arrays.size());
    const std::vector<const float*> no_fills;
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        Writer<Offset> writer(out, before[size_of(c)], arrays, no_fills);
        for (std::int64_t r = chunks.begin(c); r < chunks.end(c); ++r) {
            const std::int64_t i = rows ? rows[r] : r;
            for (auto k = static_cast<std::int64_t>(p.row_ptr[i]); k < p.row_ptr[i + 1]; ++k) {
                const Index col = new_column(k);
                writer.push(col, k, col >= 0);
            }
            out.pattern.row_ptr[size_of(r) + 1] = static_cast<Offset>(writer.position());
        }
        writer.flush();
    });
    return out;
}

template <class Offset>
Buffer<Cell> draw_missing(const PatternView<Offset>& p, const std::uint8_t* mask, std::uint64_t count,
                          const Stream& stream, int threads) {
    const FreeCells<Offset> cells(p, mask, threads);
    const std::uint64_t free = cells.count();
    if (count > free)
        throw InvalidArgument("cannot draw " + to_string(count) + " missing cells from a layer of " +
                              to_string(p.rows) + " x " + to_string(p.cols) + " with " + to_string(p.cells() - free) +
                              " connections: only " + to_string(free) + " cells are free; ask for fewer");
    // More than half: drawing the ones to leave out keeps collisions rare.
    const bool leave_out = count > free / 2;
    const Buffer<std::uint64_t> drawn = draw_distinct(leave_out ? free - count : count, free, stream, threads);
    const auto drawn_before = [&](Index row) {
        return std::lower_bound(drawn.begin(), drawn.end(), cells.before(row)) - drawn.begin();
    };
    Buffer<Cell> out(count);
    const auto work_before = [&](Index row) {
        const std::int64_t ranks = drawn_before(row), given = static_cast<std::int64_t>(cells.before(row)) - ranks;
        return static_cast<std::int64_t>(p.row_ptr[row]) + 2 * std::int64_t{row} + (leave_out ? given : ranks);
    };
    const RowBlocks<decltype(work_before)> blocks(p.rows, work_before, 8192);
    parallel_for(blocks.count(), threads, [&](std::int64_t b, int) {
        std::vector<Index> columns;
        std::vector<std::uint64_t> others;
        const Index row_begin = blocks.begin(b), row_end = blocks.end(b);
        const std::uint64_t* next = drawn.begin() + drawn_before(row_begin);
        for (Index i = row_begin; i < row_end; ++i) {
            const std::uint64_t* const first = next;
            const std::uint64_t begin = cells.before(i), end = cells.before(i + 1);
            while (next < drawn.end() && *next < end) ++next;
            if (!leave_out) {
                cells.find(i, first, next, columns, out.data() + (first - drawn.begin()));
                continue;
            }
            others.clear();
            const std::uint64_t* skip = first;
            for (std::uint64_t rank = begin; rank < end; ++rank)
                if (skip < next && *skip == rank)
                    ++skip;
                else
                    others.push_back(rank);
            cells.find(i, others.data(), others.data() + others.size(), columns,
                       out.data() + (begin - static_cast<std::uint64_t>(first - drawn.begin())));
        }
    });
    return out;
}

template <class Offset>
Pattern<Offset> from_cells(Index rows, Index cols, const Cell* cells, std::uint64_t n, int threads) {
    check_holdable<Offset>(rows, cols, n);
    check_cells(rows, cols, cells, n, "from_cells:", threads);
    Pattern<Offset> out{rows, cols, Buffer<Offset>(size_of(rows) + 1), Buffer<Index>(n)};
    // The chunk that holds the first cell of a row also writes the pointers of the empty rows before it.
    const Chunks chunks(static_cast<std::int64_t>(n), 32768);
    const auto width = static_cast<Cell>(cols);
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        std::int64_t k = chunks.begin(c);
        std::int64_t row = k == 0 ? -1 : static_cast<std::int64_t>(cells[k - 1] / width);
        Cell next_row = static_cast<Cell>(row + 1) * width;
        for (; k < chunks.end(c); ++k) {
            while (cells[k] >= next_row) {
                out.row_ptr[size_of(++row)] = static_cast<Offset>(k);
                next_row += width;
            }
            out.col_idx[size_of(k)] = static_cast<Index>(cells[k] - (next_row - width));
        }
    });
    const std::int64_t last = n == 0 ? -1 : static_cast<std::int64_t>(cells[n - 1] / width);
    std::fill(out.row_ptr.begin() + last + 1, out.row_ptr.end(), static_cast<Offset>(n));
    return out;
}

#define INSTANTIATE(Offset)                                                                                           \
    template void check_holdable<Offset>(std::int64_t, std::int64_t, std::uint64_t);                                  \
    template void validate(const PatternView<Offset>&, std::uint64_t);                                                \
    template void check_index_arrays(const IndexArrays<Offset>&, std::uint64_t, int);                                 \
    template Transposed<Offset> transpose(const PatternView<Offset>&, int);                                           \
    template TransposedValues<Offset> transpose_values(const PatternView<Offset>&, const float*, int);                \
    template void order_by_target(const PatternView<Offset>&, const float*, float*, int);                             \
    template void count_by_target(const PatternView<Offset>&, std::int64_t*);                                         \
    template Carried<Offset> keep(const PatternView<Offset>&, const std::uint8_t*, const std::vector<const float*>&,  \
                                  int);                                                                               \
    template Carried<Offset> rewire(const PatternView<Offset>&, const std::uint8_t*, const Cell*, std::uint64_t,      \
                                    const std::vector<const float*>&, const std::vector<const float*>&, int);         \
    template Carried<Offset> unite(const std::vector<PatternView<Offset>>&,                                           \
                                   const std::vector<std::vector<const float*>>&, double, int);                       \
    template void carry(const PatternView<Offset>&, const PatternView<Offset>&, const std::vector<const float*>&,     \
                        const std::vector<float*>&, int);                                                             \
    template Carried<Offset> select(const PatternView<Offset>&, const Index*, Index, const Index*, Index,             \
                                    const std::vector<const float*>&, int);                                           \
    template Buffer<Cell> draw_missing(const PatternView<Offset>&, const std::uint8_t*, std::uint64_t, const Stream&, \
                                       int);                                                                          \
    template Pattern<Offset> from_cells(Index, Index, const Cell*, std::uint64_t, int);
TRULYSPARSE_FOR_EACH_OFFSET(INSTANTIATE)
#undef INSTANTIATE

}  // namespace trulysparse
