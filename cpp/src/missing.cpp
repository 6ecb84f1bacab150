// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/missing.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "blocks.hpp"
#include "isa/table.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse {

namespace {

using std::to_string;

constexpr std::uint32_t kMagnitude = 0x7fffffffu, kInfinity = 0x7f800000u, kSmallestNormal = 0x00800000u;
constexpr Index kRowPanels = 6;      // of one work item: their rows share its columns
constexpr Index kColumnPanels = 16;  // of one work item: they fit the second cache
constexpr Index kSampledRows = 64, kSampledColumns = 144;
constexpr std::uint64_t kWorthSampling = 1 << 17;  // cells; below it a first threshold costs more than it saves
constexpr std::uint64_t kSampledValues = 4096;
constexpr std::uint64_t kReserved = 1 << 16;  // cells a thread makes room for at once
constexpr Index kPiece = 1024;                // values looked at by one call
constexpr double kCanOverflow = 1e38;         // a sum of products below this in all never becomes infinite

// Magnitudes are compared as integers: threads here flush denormals, which as floats would all be zero.
std::uint32_t magnitude(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits & kMagnitude;
}

// What vectors compare with: nothing of this magnitude or more is below it.
float limit_of(std::uint32_t reach) {
    if (reach < kSmallestNormal) return 0.0f;
    float limit;
    std::memcpy(&limit, &reach, sizeof limit);
    return limit;
}

struct Found {
    Cell cell;
    float value;
};

bool better(const Found& a, const Found& b) {
    const std::uint32_t of_a = magnitude(a.value), of_b = magnitude(b.value);
    return of_a != of_b ? of_a > of_b : a.cell < b.cell;
}

// Stable, by key(item) < 2^bits.
template <class T, class Key>
void radix_sort(std::vector<T>& items, int bits, Key key) {
    constexpr int kDigit = 11;
    std::vector<T> other(items.size());
    for (int shift = 0; shift < bits; shift += kDigit) {
        const auto digit = [&](const T& item) {
            return static_cast<std::size_t>(key(item) >> shift) & ((std::size_t{1} << kDigit) - 1);
        };
        std::vector<std::size_t> places(std::size_t{1} << kDigit);
        for (const T& item : items) ++places[digit(item)];
        sums_before(places);
        for (const T& item : items) other[places[digit(item)]++] = item;
        std::swap(items, other);
    }
}

int bits_below(std::uint64_t bound) {
    int bits = 0;
    while (bits < 64 && bound >> bits != 0) ++bits;
    return bits;
}

// Which cells are connections that stay.
template <class Offset>
class Kept {
public:
    Kept(const PatternView<Offset>& p, const std::uint8_t* mask) : p_(p), mask_(mask) {
        const auto nnz = static_cast<std::uint64_t>(p.nnz());
        std::uint64_t kept = nnz;
        if (mask) kept -= static_cast<std::uint64_t>(std::count(mask, mask + nnz, std::uint8_t{0}));
        missing_ = p.cells() - kept;
    }
    const PatternView<Offset>& pattern() const { return p_; }
    std::uint64_t missing() const { return missing_; }

    bool has(Index row, Index column) const {
        auto at = static_cast<std::int64_t>(p_.row_ptr[row]);
        auto n = static_cast<std::int64_t>(p_.row_ptr[row + 1]) - at;
        if (n == 0) return false;
        while (n > 1) {  // no branch that depends on what is found
            const std::int64_t half = n / 2;
            at += p_.col_idx[at + half] <= column ? half : 0;
            n -= half;
        }
        return p_.col_idx[at] == column && stays(at);
    }

    // The first `n` cells that are neither kept nor in `taken` (ascending), as zeros.
    void append_free(std::vector<Found>& taken, std::uint64_t n) const {
        const std::size_t end = taken.size();
        std::size_t next = 0;
        const Cell columns = static_cast<Cell>(p_.cols);
        for (Index row = 0; row < p_.rows && n > 0; ++row) {
            std::int64_t at = p_.row_ptr[row];
            const std::int64_t row_end = p_.row_ptr[row + 1];
            for (Index column = 0; column < p_.cols && n > 0; ++column) {
                const Cell cell = static_cast<Cell>(row) * columns + static_cast<Cell>(column);
                const bool connected = at < row_end && p_.col_idx[at] == column;
                const bool found = next < end && taken[next].cell == cell;
                const bool is_free = !(connected && stays(at)) && !found;
                at += connected;
                next += found;
                if (!is_free) continue;
                taken.push_back({cell, 0.0f});
                --n;
            }
        }
    }

private:
    bool stays(std::int64_t at) const { return !mask_ || mask_[at] != 0; }
    PatternView<Offset> p_;
    const std::uint8_t* mask_;
    std::uint64_t missing_;
};

// The k best cells so far of each thread; what is below reach() is among the k best of all for nobody.
class Shortlist {
public:
    Shortlist(std::uint64_t k, std::uint32_t floor, int threads)
        : k_(k), most_(k + std::max<std::uint64_t>(k, 1024)), reach_(floor), lists_(size_of(threads)) {}
    std::uint32_t reach() const { return reach_.load(std::memory_order_relaxed); }

    // A cell without a connection, of at least reach().
    void add(Cell cell, float value, int thread) {
        List& list = lists_[size_of(thread)];
        if (magnitude(value) > kInfinity) {
            list.first_nan = std::min(list.first_nan, cell);
            ++list.nans;
            return;
        }
        if (list.found.empty()) list.found.reserve(static_cast<std::size_t>(std::min(most_, kReserved)));
        list.found.push_back({cell, value});
        if (list.found.size() >= most_) shorten(list.found);
    }

    // NotFinite if a NaN was added.
    std::vector<Found> best(Index columns) {
        List& all = lists_[0];
        for (std::size_t t = 1; t < lists_.size(); ++t) {
            all.found.insert(all.found.end(), lists_[t].found.begin(), lists_[t].found.end());
            lists_[t].found = std::vector<Found>();
            all.nans += lists_[t].nans;
            all.first_nan = std::min(all.first_nan, lists_[t].first_nan);
        }
        if (all.nans > 0)
            throw NotFinite("gradients of missing connections hold " + to_string(all.nans) +
                            " NaN, the first between source " + to_string(all.first_nan / static_cast<Cell>(columns)) +
                            " and target " + to_string(all.first_nan % static_cast<Cell>(columns)) +
                            "; the training diverged: lower the learning rate");
        if (all.found.size() > k_) shorten(all.found);
        return std::move(all.found);
    }

private:
    struct alignas(kAlignment) List {
        std::vector<Found> found;
        std::uint64_t nans = 0;
        Cell first_nan = std::numeric_limits<Cell>::max();
    };
    void shorten(std::vector<Found>& found) {
        const auto last = found.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
        std::nth_element(found.begin(), last, found.end(), better);
        const std::uint32_t enough = magnitude(last->value);
        std::uint32_t seen = reach();
        while (seen < enough && !reach_.compare_exchange_weak(seen, enough, std::memory_order_relaxed)) {
        }
        found.resize(static_cast<std::size_t>(k_));
    }
    std::uint64_t k_, most_;
    std::atomic<std::uint32_t> reach_;
    std::vector<List> lists_;
};

// A threshold that about k of `population` cells reach, judged by some of them; a little low rather than too high, the
// lower the more often it was `missed`. 1, which all but zeros reach, if the sample says nothing.
std::uint32_t sampled_reach(std::vector<std::uint32_t>& sample, std::uint64_t k, double population, int missed) {
    const double rank = static_cast<double>(k) / std::max(population, 1.0) * static_cast<double>(sample.size());
    const double safe = (rank + 3.0 * std::sqrt(rank) + 4.0) * (missed == 0 ? 1.0 : 4.0);
    if (missed > 1 || safe >= 0.5 * static_cast<double>(sample.size())) return 1;
    const auto at = sample.begin() + static_cast<std::ptrdiff_t>(safe);
    std::nth_element(sample.begin(), at, sample.end(), std::greater<>());
    return std::max(*at, 1u);
}

// Runs `collect(shortlist)`, which adds every missing cell that reaches; again from a lower threshold while the sample's
// was too high. The rest are zeros, whose cells need no looking at.
template <class Offset, class Collect>
MissingTop take_top(const Kept<Offset>& kept, std::uint64_t k, std::vector<std::uint32_t> sample, double population,
                    int threads, Collect collect) {
    std::vector<Found> best;
    for (int missed = 0;; ++missed) {
        const std::uint32_t reach = sampled_reach(sample, k, population, missed);
        Shortlist shortlist(k, reach, std::clamp(threads, 1, kMostThreads));
        collect(shortlist);
        best = shortlist.best(kept.pattern().cols);
        if (best.size() == k || reach == 1) break;
    }
    const auto by_cell = [](const Found& found) { return found.cell; };
    const int bits = bits_below(kept.pattern().cells());
    radix_sort(best, bits, by_cell);
    if (best.size() < k) {
        kept.append_free(best, k - best.size());
        radix_sort(best, bits, by_cell);
    }
    MissingTop top{Buffer<Cell>(best.size()), Buffer<float>(best.size())};
    for (std::size_t f = 0; f < best.size(); ++f) top.cells[f] = best[f].cell, top.values[f] = best[f].value;
    return top;
}

// One more than the last column in which some row is not zero.
Index depth_of(const float* a, Index rows, Index ld, int threads) {
    const Chunks chunks(rows, std::max<Index>(1, 16384 / std::max<Index>(ld, 1)));
    std::vector<Index> depths(size_of(chunks.count()));
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        Index depth = 0;
        for (std::int64_t r = chunks.begin(c); r < chunks.end(c); ++r) {
            Index here = ld;
            while (here > depth && a[r * ld + here - 1] == 0.0f) --here;
            depth = here;
        }
        depths[size_of(c)] = depth;
    });
    return depths.empty() ? 0 : *std::max_element(depths.begin(), depths.end());
}

// The Euclidean length of a row's first `depth` values, to about the accuracy that `margin_of` allows for.
float length_of(const float* row, Index depth, const KernelTable& kernels) {
    const float fast = kernels.dot(row, row, padded(depth));  // may count padding, which only makes it longer
    if (fast > 1e-20f && fast < 1e30f) return std::sqrt(fast);
    double squares = 0.0;  // squares that single precision cannot hold
    for (Index b = 0; b < depth; ++b) squares += static_cast<double>(row[b]) * static_cast<double>(row[b]);
    return static_cast<float>(std::sqrt(squares));
}

std::vector<float> lengths_of(const float* a, Index rows, Index ld, Index depth, const char* name, int threads) {
    const KernelTable& kernels = active_kernels();
    std::vector<float> lengths(size_of(rows));
    const Chunks chunks(rows, std::max<Index>(1, 16384 / std::max<Index>(depth, 1)));
    parallel_for(chunks.count(), threads, [&](std::int64_t c, int) {
        for (std::int64_t r = chunks.begin(c); r < chunks.end(c); ++r)
            lengths[size_of(r)] = length_of(a + r * ld, depth, kernels);
    });
    for (std::size_t r = 0; r < lengths.size(); ++r)
        if (!std::isfinite(lengths[r])) {
            const float* row = a + r * size_of(ld);
            if (std::all_of(row, row + depth, [](float v) { return std::isfinite(v); })) continue;
            throw NotFinite(std::string(name) + " holds NaN or infinity in row " + to_string(r) +
                            "; the training diverged: lower the learning rate");
        }
    return lengths;
}

// What computed sums may exceed the product of computed lengths by: roundings of both, several times over.
double margin_of(Index depth) { return std::exp((static_cast<double>(depth) + 4.0) * 0x1p-22); }

// Rows that are not all zero, the longest first.
std::vector<Index> longest_first(const std::vector<float>& lengths) {
    std::vector<Index> order;
    for (std::size_t r = 0; r < lengths.size(); ++r)
        if (magnitude(lengths[r]) != 0) order.push_back(static_cast<Index>(r));
    radix_sort(order, 31, [&](Index r) { return kMagnitude - magnitude(lengths[static_cast<std::size_t>(r)]); });
    return order;
}

std::vector<Index> every(Index n) {
    std::vector<Index> order(size_of(n));
    for (Index r = 0; r < n; ++r) order[size_of(r)] = r;
    return order;
}

// `n` of them at even distances.
std::vector<Index> some(const std::vector<Index>& order, Index n) {
    const auto all = static_cast<Index>(order.size());
    std::vector<Index> chosen(size_of(std::min(n, all)));
    for (std::size_t s = 0; s < chosen.size(); ++s) chosen[s] = order[(2 * s + 1) * order.size() / (2 * chosen.size())];
    return chosen;
}

// Rows of x or dy in a given order, `width` side by side: (depth, width), for outer products. The last of these panels
// is as narrow as `step` allows, its padding zero.
class Panels {
public:
    Panels(const float* a, Index ld, Index depth, std::vector<Index> order, Index width, Index step, int threads)
        : depth_(depth), width_(width), step_(step), order_(std::move(order)) {
        data_ = Buffer<float>(size_of(count()) * size_of(width) * size_of(depth));
        parallel_for(count(), threads, [&](std::int64_t p, int) {
            const Index panel = static_cast<Index>(p), columns = this->width(panel);
            float* out = data_.data() + offset(panel);
            for (Index c = 0; c < columns; ++c)
                if (c < filled(panel)) {
                    const float* row = a + size_of(this->row(panel, c)) * size_of(ld);
                    for (Index b = 0; b < depth; ++b) out[size_of(b) * size_of(columns) + size_of(c)] = row[b];
                } else {
                    for (Index b = 0; b < depth; ++b) out[size_of(b) * size_of(columns) + size_of(c)] = 0.0f;
                }
        });
    }
    Index count() const { return static_cast<Index>((static_cast<std::int64_t>(order_.size()) + width_ - 1) / width_); }
    std::int64_t rows() const { return static_cast<std::int64_t>(order_.size()); }
    Index filled(Index panel) const {
        return static_cast<Index>(std::min<std::int64_t>(width_, rows() - first(panel)));
    }
    Index width(Index panel) const { return (filled(panel) + step_ - 1) / step_ * step_; }
    Index row(Index panel, Index place) const { return order_[size_of(first(panel) + place)]; }
    const float* data(Index panel) const { return data_.data() + offset(panel); }
    Index depth() const { return depth_; }

private:
    std::int64_t first(Index panel) const { return static_cast<std::int64_t>(panel) * width_; }
    std::size_t offset(Index panel) const { return size_of(first(panel)) * size_of(depth_); }
    Index depth_, width_, step_;
    std::vector<Index> order_;
    Buffer<float> data_;
};

Panels row_panels(const float* x, Index ld, Index depth, std::vector<Index> order, int threads) {
    const Index width = active_kernels().tile_rows;
    return Panels(x, ld, depth, std::move(order), width, width, threads);
}
Panels column_panels(const float* dy, Index ld, Index depth, std::vector<Index> order, int threads) {
    const KernelTable& kernels = active_kernels();
    return Panels(dy, ld, depth, std::move(order), kernels.tile_columns, kernels.lanes, threads);
}

// Blocks of row panels x column panels; items that follow each other share their columns.
struct Tiles {
    Index row_panels, column_panels;
    std::int64_t row_blocks = (row_panels + kRowPanels - 1) / kRowPanels;
    std::int64_t column_blocks = (column_panels + kColumnPanels - 1) / kColumnPanels;
    std::int64_t items() const { return row_blocks * column_blocks; }
    Index row_begin(std::int64_t item) const { return static_cast<Index>(item % row_blocks) * kRowPanels; }
    Index row_end(std::int64_t item) const { return std::min(row_panels, row_begin(item) + kRowPanels); }
    Index column_begin(std::int64_t item) const { return static_cast<Index>(item / row_blocks) * kColumnPanels; }
    Index column_end(std::int64_t item) const { return std::min(column_panels, column_begin(item) + kColumnPanels); }
};

// Magnitudes of the gradients of missing cells between some rows and some columns.
template <class Offset>
std::vector<std::uint32_t> sample_gradients(const Kept<Offset>& kept, const Panels& rows, const Panels& columns,
                                            int threads) {
    constexpr std::uint32_t kNone = ~0u;
    const KernelTable& kernels = active_kernels();
    std::vector<std::uint32_t> sample(size_of(rows.count()) * size_of(columns.count()) * kMostTileCells, kNone);
    parallel_for(rows.count(), threads, [&](std::int64_t item, int) {
        const Index r = static_cast<Index>(item);
        float values[kMostTileCells];
        std::uint16_t places[kMostTileCells];
        for (Index c = 0; c < columns.count(); ++c) {
            const Index width = columns.width(c);
            const Index found =
                kernels.gradient_reach(rows.data(r), columns.data(c), rows.depth(), width, 0.0f, values, places);
            std::uint32_t* out = &sample[(size_of(r) * size_of(columns.count()) + size_of(c)) * kMostTileCells];
            for (Index f = 0; f < found; ++f) {
                const Index row = places[f] / width, column = places[f] % width;
                if (row < rows.filled(r) && column < columns.filled(c) && magnitude(values[f]) <= kInfinity &&
                    !kept.has(rows.row(r, row), columns.row(c, column)))
                    out[f] = magnitude(values[f]);
            }
        }
    });
    sample.erase(std::remove(sample.begin(), sample.end(), kNone), sample.end());
    return sample;
}

}  // namespace

template <class Offset>
MissingTop top_missing_gradients(const PatternView<Offset>& p, const std::uint8_t* mask, const float* x,
                                 const float* dy, Index ld, std::uint64_t k, int threads) {
    const Kept<Offset> kept(p, mask);
    k = std::min(k, kept.missing());
    if (k == 0) return {};
    const KernelTable& kernels = active_kernels();
    const Index depth = depth_of(dy, p.cols, ld, threads);
    const std::vector<float> row_lengths = lengths_of(x, p.rows, ld, depth, "x", threads),
                             column_lengths = lengths_of(dy, p.cols, ld, depth, "dy", threads);
    std::vector<Index> row_order = longest_first(row_lengths), column_order = longest_first(column_lengths);
    const std::uint64_t cells = static_cast<std::uint64_t>(row_order.size()) * column_order.size();

    std::vector<std::uint32_t> sample;
    if (cells >= kWorthSampling && k < kept.missing())
        sample = sample_gradients(kept, row_panels(x, ld, depth, some(row_order, kSampledRows), threads),
                                  column_panels(dy, ld, depth, some(column_order, kSampledColumns), threads), threads);
    const double population =
        static_cast<double>(cells) * (static_cast<double>(kept.missing()) / static_cast<double>(p.cells()));

    const Panels rows = row_panels(x, ld, depth, std::move(row_order), threads),
                 columns = column_panels(dy, ld, depth, std::move(column_order), threads);
    const Tiles tiles{rows.count(), columns.count()};
    const double margin = margin_of(depth);
    // No sum of these panels reaches (Cauchy-Schwarz), nor of any that come after them.
    const auto out_of_reach = [&](Index r, Index c, float limit) {
        const double most = margin * static_cast<double>(row_lengths[size_of(rows.row(r, 0))]) *
                            static_cast<double>(column_lengths[size_of(columns.row(c, 0))]);
        return most < static_cast<double>(limit) && most < kCanOverflow;
    };
    return take_top(kept, k, std::move(sample), population, threads, [&](Shortlist& shortlist) {
        parallel_for(tiles.items(), threads, [&](std::int64_t item, int thread) {
            float values[kMostTileCells];
            std::uint16_t places[kMostTileCells];
            const Index first_row = tiles.row_begin(item);
            for (Index c = tiles.column_begin(item); c < tiles.column_end(item); ++c) {
                const Index width = columns.width(c);
                for (Index r = first_row; r < tiles.row_end(item); ++r) {
                    const float limit = limit_of(shortlist.reach());
                    if (out_of_reach(r, c, limit)) {
                        if (r == first_row) return;
                        break;
                    }
                    const Index found =
                        kernels.gradient_reach(rows.data(r), columns.data(c), depth, width, limit, values, places);
                    for (Index f = 0; f < found; ++f) {
                        if (magnitude(values[f]) < shortlist.reach()) continue;  // padding too
                        const Index row = rows.row(r, places[f] / width), column = columns.row(c, places[f] % width);
                        if (!kept.has(row, column))
                            shortlist.add(
                                static_cast<Cell>(row) * static_cast<Cell>(p.cols) + static_cast<Cell>(column),
                                values[f], thread);
                    }
                }
            }
        });
    });
}

template <class Offset>
MissingTop top_missing_values(const PatternView<Offset>& p, const std::uint8_t* mask, const float* dense,
                              std::uint64_t k, int threads) {
    const Kept<Offset> kept(p, mask);
    k = std::min(k, kept.missing());
    if (k == 0) return {};
    const KernelTable& kernels = active_kernels();
    const std::uint64_t cells = p.cells();
    const auto is_kept = [&](Cell cell) {
        const Cell columns = static_cast<Cell>(p.cols), row = cell / columns;
        return kept.has(static_cast<Index>(row), static_cast<Index>(cell - row * columns));
    };
    std::vector<std::uint32_t> sample;
    if (cells >= kWorthSampling && k < kept.missing())
        for (std::uint64_t s = 0; s < kSampledValues; ++s) {
            // Multiples of the golden ratio: even, and in step with no row length.
            const double place = static_cast<double>(s) * 0.6180339887498949;
            const Cell cell = static_cast<Cell>((place - std::floor(place)) * static_cast<double>(cells));
            if (cell < cells && magnitude(dense[cell]) <= kInfinity && !is_kept(cell))
                sample.push_back(magnitude(dense[cell]));
        }
    const Chunks chunks(static_cast<std::int64_t>(cells), 32768, std::int64_t{1} << 20);
    return take_top(
        kept, k, std::move(sample), static_cast<double>(kept.missing()), threads, [&](Shortlist& shortlist) {
            parallel_for(chunks.count(), threads, [&](std::int64_t chunk, int thread) {
                float values[kPiece];
                std::uint16_t places[kPiece];
                for (std::int64_t at = chunks.begin(chunk); at < chunks.end(chunk); at += kPiece) {
                    const Index n = static_cast<Index>(std::min<std::int64_t>(kPiece, chunks.end(chunk) - at));
                    const Index found = kernels.reach(dense + at, n, limit_of(shortlist.reach()), values, places);
                    for (Index f = 0; f < found; ++f) {
                        const Cell cell = static_cast<Cell>(at) + places[f];
                        if (magnitude(values[f]) >= shortlist.reach() && !is_kept(cell))
                            shortlist.add(cell, values[f], thread);
                    }
                }
            });
        });
}

void gradient_at(const Cell* cells, std::uint64_t n, Index n_out, const float* x, const float* dy, Index ld, float* out,
                 int threads) {
    const KernelTable& kernels = active_kernels();
    const Chunks chunks(static_cast<std::int64_t>(n), 512);
    parallel_for(chunks.count(), threads, [&](std::int64_t chunk, int) {
        for (std::int64_t c = chunks.begin(chunk); c < chunks.end(chunk); ++c) {
            const Cell columns = static_cast<Cell>(n_out), row = cells[c] / columns, column = cells[c] - row * columns;
            out[c] = kernels.dot(x + row * size_of(ld), dy + column * size_of(ld), ld);
        }
    });
}

void accumulate_gradient(float* dense, Index n_in, Index n_out, const float* x, const float* dy, Index ld, float decay,
                         float weight, int threads) {
    const KernelTable& kernels = active_kernels();
    const Index depth = depth_of(dy, n_out, ld, threads);
    const Panels rows = row_panels(x, ld, depth, every(n_in), threads),
                 columns = column_panels(dy, ld, depth, every(n_out), threads);
    const Tiles tiles{rows.count(), columns.count()};
    const std::size_t stride = size_of(n_out);
    parallel_for(tiles.items(), threads, [&](std::int64_t item, int) {
        for (Index c = tiles.column_begin(item); c < tiles.column_end(item); ++c)
            for (Index r = tiles.row_begin(item); r < tiles.row_end(item); ++r)
                kernels.gradient_update(rows.data(r), columns.data(c), depth, columns.width(c), decay, weight,
                                        dense + size_of(rows.row(r, 0)) * stride + size_of(columns.row(c, 0)), stride,
                                        rows.filled(r), columns.filled(c));
    });
}

#define TRULYSPARSE_INSTANTIATE(Offset)                                                                      \
    template MissingTop top_missing_gradients(const PatternView<Offset>&, const std::uint8_t*, const float*, \
                                              const float*, Index, std::uint64_t, int);                      \
    template MissingTop top_missing_values(const PatternView<Offset>&, const std::uint8_t*, const float*,    \
                                           std::uint64_t, int);
TRULYSPARSE_FOR_EACH_OFFSET(TRULYSPARSE_INSTANTIATE)

}  // namespace trulysparse
