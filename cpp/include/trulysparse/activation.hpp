// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "trulysparse/rng.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

// rectifier: x for x > 0, slope * x for x <= 0, derivative 1 at 0: ReLU (0), leaky ReLU, All-ReLU (slope +-alpha).
enum class ActivationKind : std::uint8_t { linear, rectifier, sigmoid, tanh };

struct Activation {
    ActivationKind kind = ActivationKind::linear;
    float slope = 0.0f;
};

// The upper half of a float32, rounded to the nearest, ties to even. Only stored: all arithmetic is in float32.
struct Bf16 {
    std::uint16_t bits;
};

// Rows of activations or deltas, and how they are stored. Memory: void or const void.
template <class Memory>
struct StoredRows {
    template <class T>
    using Like = std::conditional_t<std::is_const_v<Memory>, const T, T>;

    Memory* data = nullptr;
    bool bf16 = false;

    StoredRows() = default;
    StoredRows(std::nullptr_t) {}
    StoredRows(Like<float>* rows) : data(rows) {}
    StoredRows(Like<Bf16>* rows) : data(rows), bf16(true) {}
    StoredRows(Memory* rows, bool as_bf16) : data(rows), bf16(as_bf16) {}
    explicit operator bool() const { return data != nullptr; }
    std::size_t element_bytes() const { return bf16 ? sizeof(Bf16) : sizeof(float); }
    // What stands n elements on.
    StoredRows operator+(std::size_t n) const {
        using Byte = Like<char>;
        StoredRows moved = *this;
        moved.data = static_cast<Byte*>(data) + n * element_bytes();
        return moved;
    }
};
using Rows = StoredRows<void>;
using ConstRows = StoredRows<const void>;

// Inverted dropout. A unit is dropped when its 16-bit draw is below `threshold` (0 = off); kept ones are scaled by
// 65536 / (65536 - threshold). Draw of (neuron, sample s of the whole batch): 16-bit half s % 2 of word (s % 8) / 2 of
// draw(stream, neuron << 32 | s / 8).
struct Dropout {
    std::uint32_t threshold = 0;  // of 65536
    Stream stream;
    Index column_offset = 0;  // place of column 0 in the whole batch, a multiple of 8
    float scale() const { return 65536.0f / static_cast<float>(65536u - threshold); }
};

// One bit an activation, 16 columns a word, (neurons, ld / 16): which z were negative, which units were kept.
// Only what the backward pass cannot read off the stored activation.
struct BitPlanes {
    std::uint16_t* negative = nullptr;  // needed for the rectifier
    std::uint16_t* kept = nullptr;      // needed with dropout
};

}  // namespace trulysparse
