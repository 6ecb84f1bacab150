// SPDX-License-Identifier: BSD-3-Clause
// The door between NumPy and the core: every array is checked here once and never converted; kernels trust what passed.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "trulysparse/activation.hpp"
#include "trulysparse/parallel.hpp"
#include "trulysparse/pattern.hpp"
#include "trulysparse/rng.hpp"
#include "trulysparse/trained.hpp"

namespace trulysparse::bindings {

namespace py = pybind11;
using namespace py::literals;

using Size = py::ssize_t;
constexpr Size kAny = -1;  // a length that the caller decides

// Becomes trulysparse.errors.ShapeError.
struct ShapeMismatch : InvalidArgument {
    using InvalidArgument::InvalidArgument;
};

// Arrays that passed the door. T is const where the array is only read.
template <class T>
struct Array1 {
    T* data = nullptr;
    Size size = 0;
};
template <class T>
struct Array2 {
    T* data = nullptr;
    Size rows = 0, cols = 0;
};

std::string describe(py::handle object);  // "float64 of shape (3, 4)", or the type of what is no array
[[noreturn]] void throw_not_array(py::handle object, const char* name, const py::dtype& expected);
[[noreturn]] void throw_not_activations(py::handle object, const char* name);
[[noreturn]] void throw_shape(py::handle object, const char* name, const std::string& expected);
[[noreturn]] void throw_read_only(const char* name);
[[noreturn]] void throw_misaligned(const char* name, std::size_t bytes, const char* cure);

template <class T>
py::array checked(py::handle object, const char* name) {
    using Value = std::remove_const_t<T>;
    if (!py::array_t<Value, py::array::c_style>::check_(object)) throw_not_array(object, name, py::dtype::of<Value>());
    py::array array = py::reinterpret_borrow<py::array>(object);
    if (!std::is_const_v<T> && !array.writeable()) throw_read_only(name);
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(Value) != 0)
        throw_misaligned(name, alignof(Value), "copy it with np.array(...)");
    return array;
}

inline std::string length_text(Size length, const char* any) { return length == kAny ? any : std::to_string(length); }

template <class T>
T* pointer(py::array& array) {
    return static_cast<T*>(const_cast<void*>(array.data()));
}

template <class T>
Array1<T> array1(py::handle object, const char* name, Size size = kAny) {
    py::array array = checked<T>(object, name);
    if (array.ndim() != 1 || (size != kAny && array.shape(0) != size))
        throw_shape(object, name, "(" + length_text(size, "n") + ",)");
    return {pointer<T>(array), array.shape(0)};
}

template <class T>
Array2<T> array2(py::handle object, const char* name, Size rows, Size cols, const char* any_cols = "m") {
    py::array array = checked<T>(object, name);
    if (array.ndim() != 2 || (rows != kAny && array.shape(0) != rows) || (cols != kAny && array.shape(1) != cols))
        throw_shape(object, name, "(" + length_text(rows, "n") + ", " + length_text(cols, any_cols) + ")");
    return {pointer<T>(array), array.shape(0), array.shape(1)};
}

// None becomes {nullptr, 0}.
template <class T>
Array1<T> optional1(py::handle object, const char* name, Size size = kAny) {
    return object.is_none() ? Array1<T>{} : array1<T>(object, name, size);
}
template <class T>
Array2<T> optional2(py::handle object, const char* name, Size rows, Size cols) {
    return object.is_none() ? Array2<T>{} : array2<T>(object, name, rows, cols);
}

// (neurons, ld) that begins at a multiple of 64 bytes.
template <class T>
Array2<T> activations(py::handle object, const char* name, Size rows = kAny, Size ld = kAny) {
    const Array2<T> a = array2<T>(object, name, rows, ld, "ld");
    if (a.cols % kLane != 0 || a.cols > std::numeric_limits<Index>::max())
        throw_shape(object, name,
                    "(" + length_text(rows, "n") + ", ld) with ld a multiple of " + std::to_string(kLane) +
                        ", which padded(batch) gives");
    if (a.rows != 0 && a.cols != 0 && reinterpret_cast<std::uintptr_t>(a.data) % kAlignment != 0)
        throw_misaligned(name, kAlignment, "allocate it with aligned_empty or aligned_zeros");
    return a;
}

// Activations as they pass from layer to layer: float32, or bfloat16, of which NumPy sees uint16.
template <class Memory>
struct StoredArray {
    Memory* data = nullptr;
    Size rows = 0, cols = 0;
    bool bf16 = false;
    StoredRows<Memory> view() const { return {data, bf16}; }
};

template <class Memory>
StoredArray<Memory> stored_activations(py::handle object, const char* name, Size rows = kAny, Size ld = kAny) {
    using Float = std::conditional_t<std::is_const_v<Memory>, const float, float>;
    using Bits = std::conditional_t<std::is_const_v<Memory>, const std::uint16_t, std::uint16_t>;
    if (py::isinstance<py::array_t<std::uint16_t, 0>>(object)) {
        const auto a = activations<Bits>(object, name, rows, ld);
        return {a.data, a.rows, a.cols, true};
    }
    if (!py::isinstance<py::array_t<float, 0>>(object)) throw_not_activations(object, name);
    const auto a = activations<Float>(object, name, rows, ld);
    return {a.data, a.rows, a.cols, false};
}

inline bool overlap(const void* a, std::size_t bytes_a, const void* b, std::size_t bytes_b) {
    const auto begin_a = reinterpret_cast<std::uintptr_t>(a), begin_b = reinterpret_cast<std::uintptr_t>(b);
    return bytes_a > 0 && bytes_b > 0 && begin_a < begin_b + bytes_b && begin_b < begin_a + bytes_a;
}
template <class T>
std::size_t bytes_of(const Array1<T>& a) {
    return static_cast<std::size_t>(a.size) * sizeof(T);
}
template <class T>
std::size_t bytes_of(const Array2<T>& a) {
    return static_cast<std::size_t>(a.rows) * static_cast<std::size_t>(a.cols) * sizeof(T);
}
template <class Memory>
std::size_t bytes_of(const StoredArray<Memory>& a) {
    return static_cast<std::size_t>(a.rows) * static_cast<std::size_t>(a.cols) * a.view().element_bytes();
}
template <class A, class B>
bool overlap(const A& a, const B& b) {
    return overlap(a.data, bytes_of(a), b.data, bytes_of(b));
}

// Refuses an output that shares memory with an input of its shape but is not that input itself.
template <class A, class B>
void check_same_or_apart(const A& out, const char* name, const B& in, const char* in_name) {
    if (out.data != in.data && overlap(out, in))
        throw InvalidArgument(std::string(name) + " shares only a part of its memory with " + in_name + "; it may be " +
                              in_name + " itself or another array");
}

// At least 1; more than any region uses becomes kMostThreads.
inline int check_threads(int& threads) {
    if (threads < 1) throw InvalidArgument("threads must be at least 1, got " + std::to_string(threads));
    if (threads > kMostThreads) threads = kMostThreads;
    return threads;
}

// Of dropout, in 65536ths.
std::uint32_t check_threshold(std::int64_t threshold, const char* name);

// A pass over nothing would leave gradients and sums as they were, which looks like a result.
template <class Array>
void check_columns(const Array& a, const char* name) {
    if (a.cols == 0)
        throw ShapeMismatch(std::string(name) + " has no columns (ld is 0); a batch of no samples cannot be computed");
}

// Raises MemoryError, with the numbers, for a call that would take more memory than there is: where the system promises
// memory that it does not have, the process would be killed in the middle instead.
void check_memory(double bytes, const std::string& what);

Index check_index(std::int64_t value, const char* name);               // 0 <= value < 2^31
std::uint64_t check_count(std::int64_t value, const char* name);       // 0 <= value
Index check_batch(std::int64_t batch, Size ld, const char* ld_owner);  // 0 <= batch <= ld
Stream make_stream(std::uint64_t seed, int purpose, std::int64_t layer, std::int64_t step);
ActivationKind activation_kind(py::handle name);
Activation make_activation(py::handle tuple, const char* name);  // ("rectifier", 0.6)

// {"slope"} (n, or 1 for all neurons) or {"left_threshold", "left_slope", "right_threshold", "right_slope"} (n each).
TrainedParameters trained_parameters(py::handle dict, const char* name, Index n);

template <class T>
struct Tag {
    using type = T;
};

// Calls f(Tag<int32>) or f(Tag<int64>), whichever the dtype of this offset array is.
template <class F>
auto with_offset(py::handle object, const char* name, F&& f) {
    if (py::array_t<std::int32_t, py::array::c_style>::check_(object)) return f(Tag<std::int32_t>{});
    if (py::array_t<std::int64_t, py::array::c_style>::check_(object)) return f(Tag<std::int64_t>{});
    throw_not_array(object, name, py::dtype("int32"));
}

// Calls f(Tag<T>) for the type of the samples, of which eight are allowed.
template <class F>
void with_sample_type(const py::array& array, const char* name, F&& f) {
    bool found = false;
    const auto attempt = [&](auto tag) {
        using T = typename decltype(tag)::type;
        if (found || !py::isinstance<py::array_t<T, 0>>(array)) return;
        found = true;
        f(tag);
    };
    attempt(Tag<float>{});
    attempt(Tag<std::uint8_t>{});
    attempt(Tag<double>{});
    attempt(Tag<std::int64_t>{});
    attempt(Tag<std::int32_t>{});
    attempt(Tag<std::int16_t>{});
    attempt(Tag<std::uint16_t>{});
    attempt(Tag<std::int8_t>{});
    if (!found)
        throw py::type_error(std::string(name) +
                             " must be float32, float64, int8, int16, int32, int64, uint8 or uint16, got " +
                             describe(array) + "; convert it once, before training, with .astype(np.float32)");
}

// A dense matrix of samples: of any type, with any strides.
py::array sample_matrix(py::handle object, const char* name);

// Strides of such a matrix in elements of type T.
template <class T>
std::array<std::int64_t, 2> whole_strides(const py::array& matrix, const char* name) {
    const Size size = sizeof(T);
    if (matrix.strides(0) % size != 0 || matrix.strides(1) % size != 0 ||
        reinterpret_cast<std::uintptr_t>(matrix.data()) % alignof(T) != 0)
        throw InvalidArgument(std::string(name) +
                              " must lie in memory in whole elements (a field of a structured array does not); "
                              "copy it with np.array(" +
                              name + ")");
    return {matrix.strides(0) / size, matrix.strides(1) / size};
}

// Numbers of rows, each below `samples`.
Array1<const std::int64_t> check_rows(py::handle object, Size samples);

// Sizes and ends of a pattern; its inside was validated when the pattern was made.
template <class Offset>
PatternView<Offset> pattern_view(std::int64_t n_in, std::int64_t n_out, py::handle row_ptr, py::handle col_idx,
                                 const char* ptr_name = "row_ptr", const char* idx_name = "col_idx") {
    const Index rows = check_index(n_in, "n_in"), cols = check_index(n_out, "n_out");
    const auto offsets = array1<const Offset>(row_ptr, ptr_name, static_cast<Size>(rows) + 1);
    const auto columns = array1<const Index>(col_idx, idx_name);
    if (offsets.data[0] != 0 || static_cast<std::int64_t>(offsets.data[rows]) != columns.size)
        throw InvalidArgument(std::string(ptr_name) + " must begin with 0 and end with the length of " + idx_name +
                              " (" + std::to_string(columns.size) + "), got " + std::to_string(offsets.data[0]) +
                              " and " + std::to_string(offsets.data[rows]));
    return {rows, cols, offsets.data, columns.data};
}

// What draw_missing takes: the cells, and twice the smaller of what is drawn and what is left out.
inline double bytes_to_draw_missing(std::uint64_t count, std::uint64_t free) {
    return 8.0 * static_cast<double>(count) + 16.0 * static_cast<double>(count <= free / 2 ? count : free - count);
}

// Arrays of any iterable, held for as long as their pointers are used: a generator keeps none of what it gave.
struct FloatArrays {
    std::vector<py::object> owners;
    std::vector<const float*> pointers;
};
FloatArrays float_arrays(py::handle iterable, const char* name, Size size);
FloatArrays optional_float_arrays(py::handle iterable, const char* name, Size size);  // None becomes nullptr

// The array owns the buffer's memory from now on.
template <class T>
py::array to_numpy(Buffer<T>&& buffer, const py::dtype& dtype = py::dtype::of<T>()) {
    const Size size = static_cast<Size>(buffer.size());
    if (buffer.data() == nullptr) return py::array(dtype, size);
    py::capsule owner(buffer.data(), [](void* memory) { std::free(memory); });
    T* data = buffer.release();
    return py::array(dtype, size, data, owner);
}

inline py::array mask_to_numpy(Buffer<std::uint8_t>&& buffer) {
    return to_numpy(std::move(buffer), py::dtype::of<bool>());
}

template <class Offset>
py::tuple to_tuple(Pattern<Offset>&& p) {
    return py::make_tuple(to_numpy(std::move(p.row_ptr)), to_numpy(std::move(p.col_idx)));
}

template <class Offset>
py::tuple to_tuple(Carried<Offset>&& carried) {
    py::list arrays;
    for (Buffer<float>& array : carried.arrays) arrays.append(to_numpy(std::move(array)));
    return py::make_tuple(to_numpy(std::move(carried.pattern.row_ptr)), to_numpy(std::move(carried.pattern.col_idx)),
                          arrays);
}

// Runs f without the GIL.
template <class F>
auto unlocked(F&& f) {
    py::gil_scoped_release release;
    return f();
}

void bind_artificial(py::module_& m);
void bind_augment(py::module_& m);
void bind_batch(py::module_& m);
void bind_isa(py::module_& m);
void bind_layer(py::module_& m);
void bind_loss(py::module_& m);
void bind_missing(py::module_& m);
void bind_pattern(py::module_& m);
void bind_probe(py::module_& m);
void bind_rng(py::module_& m);
void bind_sample(py::module_& m);
void bind_select(py::module_& m);
void bind_single(py::module_& m);
void bind_trained(py::module_& m);
void bind_update(py::module_& m);
void bind_words(py::module_& m);

}  // namespace trulysparse::bindings
