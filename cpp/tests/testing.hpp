// SPDX-License-Identifier: BSD-3-Clause
// What the tests share: odd layers, reproducible numbers, and loops over instruction sets and thread counts.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "trulysparse/isa.hpp"
#include "trulysparse/pattern.hpp"

namespace testing {

using trulysparse::Index;

inline const std::vector<int> kThreads = {1, 2, 7};

// A layer as plain vectors, written the slow way.
template <class Offset>
struct Layer {
    std::string name;
    Index rows = 0, cols = 0;
    std::vector<Offset> row_ptr;
    std::vector<Index> col_idx;
    trulysparse::PatternView<Offset> view() const { return {rows, cols, row_ptr.data(), col_idx.data()}; }
    std::size_t nnz() const { return col_idx.size(); }
};

template <class Offset>
Layer<Offset> random_layer(std::string name, Index rows, Index cols, double density, unsigned seed) {
    std::mt19937 generator(seed);
    std::bernoulli_distribution coin(density);
    Layer<Offset> layer{std::move(name), rows, cols, {0}, {}};
    for (Index i = 0; i < rows; ++i) {
        for (Index j = 0; j < cols; ++j)
            if (coin(generator)) layer.col_idx.push_back(j);
        layer.row_ptr.push_back(static_cast<Offset>(layer.col_idx.size()));
    }
    return layer;
}

// Empty rows and columns, one full row (long enough to be cut into pieces), one full column, nothing, everything.
template <class Offset>
std::vector<Layer<Offset>> odd_layers() {
    std::vector<Layer<Offset>> layers;
    layers.push_back({"no rows", 0, 5, {0}, {}});
    layers.push_back({"no columns", 5, 0, {0, 0, 0, 0, 0, 0}, {}});
    layers.push_back({"no connections", 4, 6, {0, 0, 0, 0, 0}, {}});
    layers.push_back({"one cell", 1, 1, {0, 1}, {0}});
    layers.push_back(random_layer<Offset>("full", 9, 17, 1.0, 1));
    layers.push_back(random_layer<Offset>("small", 30, 20, 0.2, 2));
    layers.push_back(random_layer<Offset>("wide", 7, 700, 0.1, 3));
    layers.push_back(random_layer<Offset>("tall", 900, 5, 0.3, 4));
    layers.push_back(random_layer<Offset>("several items", 300, 400, 0.1, 5));
    Layer<Offset> hub = random_layer<Offset>("hub row", 3, 10000, 0.001, 6);
    Layer<Offset> long_row{"hub row", 3, 10000, {0}, {}};
    for (Index i = 0; i < 3; ++i) {
        if (i == 1)
            for (Index j = 0; j < 10000; ++j) long_row.col_idx.push_back(j);
        else
            long_row.col_idx.insert(long_row.col_idx.end(), hub.col_idx.begin() + hub.row_ptr[i],
                                    hub.col_idx.begin() + hub.row_ptr[i + 1]);
        long_row.row_ptr.push_back(static_cast<Offset>(long_row.col_idx.size()));
    }
    layers.push_back(std::move(long_row));
    Layer<Offset> hub_column{"hub column", 9000, 3, {0}, {}};
    for (Index i = 0; i < 9000; ++i) {
        if (i % 50 == 7) hub_column.col_idx.push_back(0);
        hub_column.col_idx.push_back(1);
        hub_column.row_ptr.push_back(static_cast<Offset>(hub_column.col_idx.size()));
    }
    layers.push_back(std::move(hub_column));
    return layers;
}

// Large enough for the parallel paths: many row blocks, buckets and long rows; a hub row and a hub column.
template <class Offset>
Layer<Offset> large_layer(unsigned seed) {
    std::mt19937 generator(seed);
    Layer<Offset> layer{"large", 4000, 50000, {0}, {}};
    for (Index i = 0; i < layer.rows; ++i) {
        Index j = static_cast<Index>(generator() % 3000);
        if (j % 4 != 0) layer.col_idx.push_back(0), ++j;
        const unsigned gap = i == 1234 ? 2 : i % 10 == 0 ? 60000 : 1000;
        for (; j < layer.cols; j += 1 + static_cast<Index>(generator() % gap)) layer.col_idx.push_back(j);
        layer.row_ptr.push_back(static_cast<Offset>(layer.col_idx.size()));
    }
    return layer;
}

// The odd ones and a large one.
template <class Offset>
std::vector<Layer<Offset>> all_layers() {
    std::vector<Layer<Offset>> all = odd_layers<Offset>();
    all.push_back(large_layer<Offset>(1));
    return all;
}

inline std::vector<float> random_floats(std::size_t n, unsigned seed, float low = -1.0f, float high = 1.0f) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<float> uniform(low, high);
    std::vector<float> values(n);
    for (float& v : values) v = uniform(generator);
    return values;
}

// Runs `body(isa name)` under every available instruction set, then restores the active one.
template <class Body>
void for_each_isa(Body body) {
    const trulysparse::Isa before = trulysparse::active_isa();
    for (trulysparse::Isa isa : trulysparse::available_isas()) {
        trulysparse::set_isa(isa);
        INFO("isa: " << std::string(trulysparse::isa_name(isa)));
        body(isa);
    }
    trulysparse::set_isa(before);
}

template <class A, class B>
bool same_bits(const A& a, const B& b) {
    return a.size() == b.size() && (a.size() == 0 || std::memcmp(&a[0], &b[0], a.size() * sizeof(a[0])) == 0);
}

}  // namespace testing
