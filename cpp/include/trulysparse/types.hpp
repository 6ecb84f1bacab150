// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace trulysparse {

using Index = std::int32_t;  // one row or column number
using Cell = std::uint64_t;  // row * columns + column
// `Offset`, a template parameter everywhere, is a position among the weights: int32 below 2^31 connections, else int64.

constexpr std::size_t kAlignment = 64;  // bytes; every array of floats that kernels touch in bulk
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kHugeBuffer = 2 * kHugePage;  // from here on a buffer asks for huge pages
constexpr Index kLane = 16;                         // activation rows are padded to a multiple of this many floats

// The caller passed something that cannot be right; the message says what, got and allowed.
struct InvalidArgument : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

// An array that could not be allocated; what() says how many bytes.
class OutOfMemory : public std::bad_alloc {
public:
    OutOfMemory(std::size_t elements, std::size_t element_bytes) {
        std::snprintf(text_, sizeof text_, "could not allocate an array of %zu elements of %zu bytes (%.1f GiB)",
                      elements, element_bytes,
                      static_cast<double>(elements) * static_cast<double>(element_bytes) / 1073741824.0);
    }
    const char* what() const noexcept override { return text_; }

private:
    char text_[112];
};

constexpr Index padded(Index batch) { return (batch + kLane - 1) / kLane * kLane; }

// An owned, aligned, uninitialised array of trivial values. Move-only, so no copy of a large array is ever silent.
template <class T>
class Buffer {
    static_assert(std::is_trivial_v<T>);

public:
    Buffer() = default;
    explicit Buffer(std::size_t size) : size_(size) {
        if (size > (std::numeric_limits<std::size_t>::max() - kAlignment) / sizeof(T))
            throw OutOfMemory(size, sizeof(T));
        const std::size_t wanted = size * sizeof(T);
        const std::size_t alignment = wanted < kHugeBuffer ? kAlignment : kHugePage;
        const std::size_t bytes = (wanted + alignment - 1) / alignment * alignment;
        data_ = static_cast<T*>(std::aligned_alloc(alignment, bytes ? bytes : alignment));
        if (!data_) throw OutOfMemory(size, sizeof(T));
#ifdef __linux__
        if (alignment == kHugePage) madvise(data_, bytes, MADV_HUGEPAGE);  // a wish: without, it is only slower
#endif
    }
    Buffer(std::size_t size, T value) : Buffer(size) {
        for (std::size_t i = 0; i < size; ++i) data_[i] = value;
    }
    Buffer(Buffer&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }

    T* data() { return data_; }
    const T* data() const { return data_; }
    std::size_t size() const { return size_; }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }
    T* begin() { return data_; }
    T* end() { return data_ + size_; }
    const T* begin() const { return data_; }
    const T* end() const { return data_ + size_; }
    // Gives the memory away (free with std::free); the buffer is empty afterwards.
    T* release() {
        size_ = 0;
        return std::exchange(data_, nullptr);
    }

private:
    T* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace trulysparse
