// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace trulysparse::bindings {

std::string describe(py::handle object) {
    if (!py::isinstance<py::array>(object)) return py::str(py::type::handle_of(object).attr("__name__"));
    const auto array = py::reinterpret_borrow<py::array>(object);
    return std::string(py::str(array.dtype())) + " of shape " + std::string(py::str(array.attr("shape")));
}

void throw_not_array(py::handle object, const char* name, const py::dtype& expected) {
    const std::string type = py::str(expected), what(name), python_type = type == "bool" ? type : "np." + type;
    if (!py::isinstance<py::array>(object))
        throw py::type_error(what + " must be a NumPy array of " + type + ", got " + describe(object) +
                             "; make one with np.array(..., dtype=" + python_type + ")");
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (array.dtype().equal(expected))
        throw py::type_error(what + " must be C-contiguous, got " + describe(object) + " with strides " +
                             std::string(py::str(array.attr("strides"))) +
                             "; arrays are never copied silently, use np.ascontiguousarray(...)");
    throw py::type_error(what + " must be an array of " + type + ", got " + describe(object) +
                         "; arrays are never converted silently, use .astype(" + python_type + ")");
}

void throw_not_activations(py::handle object, const char* name) {
    const std::string must = std::string(name) + " must be ",
                      of = " array of float32, or of uint16 holding bfloat16, got ";
    if (!py::isinstance<py::array>(object))
        throw py::type_error(must + "a NumPy" + of + describe(object) +
                             "; make one with np.array(..., dtype=np.float32)");
    throw py::type_error(must + "an" + of + describe(object) +
                         "; arrays are never converted silently, use .astype(np.float32)");
}

void throw_shape(py::handle object, const char* name, const std::string& expected) {
    throw ShapeMismatch(std::string(name) + " must have shape " + expected + ", got " +
                        std::string(py::str(object.attr("shape"))));
}

void throw_read_only(const char* name) {
    throw InvalidArgument(std::string(name) + " is a read-only array but would be written to; pass a writable copy");
}

void throw_misaligned(const char* name, std::size_t bytes, const char* cure) {
    throw InvalidArgument(std::string(name) + " must begin at a multiple of " + std::to_string(bytes) +
                          " bytes in memory; " + cure);
}

Index check_index(std::int64_t value, const char* name) {
    if (value < 0 || value > std::numeric_limits<Index>::max())
        throw InvalidArgument(std::string(name) + " must be between 0 and 2147483647, got " + std::to_string(value));
    return static_cast<Index>(value);
}

std::uint64_t check_count(std::int64_t value, const char* name) {
    if (value < 0) throw InvalidArgument(std::string(name) + " must not be negative, got " + std::to_string(value));
    return static_cast<std::uint64_t>(value);
}

Index check_batch(std::int64_t batch, Size ld, const char* ld_owner) {
    if (batch < 0 || batch > ld)
        throw ShapeMismatch("batch must be between 0 and the columns of " + std::string(ld_owner) + " (" +
                            std::to_string(ld) + "), got " + std::to_string(batch));
    return static_cast<Index>(batch);
}

py::array sample_matrix(py::handle object, const char* name) {
    if (!py::isinstance<py::array>(object)) throw_not_array(object, name, py::dtype::of<float>());
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (array.ndim() != 2) throw_shape(object, name, "(samples, features)");
    return array;
}

Array1<const std::int64_t> check_rows(py::handle object, Size samples) {
    const auto rows = array1<const std::int64_t>(object, "rows");
    for (Size b = 0; b < rows.size; ++b)
        if (rows.data[b] < 0 || rows.data[b] >= samples)
            throw InvalidArgument("rows must be sample numbers between 0 and " + std::to_string(samples - 1) +
                                  ", got " + std::to_string(rows.data[b]) + " at position " + std::to_string(b));
    return rows;
}

std::uint32_t check_threshold(std::int64_t threshold, const char* name) {
    if (threshold < 0 || threshold > 65535)
        throw InvalidArgument(std::string(name) + " must be between 0 (no dropout) and 65535, got " +
                              std::to_string(threshold));
    return static_cast<std::uint32_t>(threshold);
}

Stream make_stream(std::uint64_t seed, int purpose, std::int64_t layer, std::int64_t step) {
    if (purpose < 1 || purpose > 255)
        throw InvalidArgument("purpose must be one of the numbers in PURPOSES, got " + std::to_string(purpose));
    if (layer < 0 || layer >= (1 << 24))
        throw InvalidArgument("layer must be between 0 and 16777215, got " + std::to_string(layer));
    if (step < 0 || step > std::numeric_limits<std::uint32_t>::max())
        throw InvalidArgument("step must be between 0 and 4294967295, got " + std::to_string(step));
    return {seed, static_cast<Purpose>(purpose), static_cast<std::uint32_t>(layer), static_cast<std::uint32_t>(step)};
}

ActivationKind activation_kind(py::handle name) {
    static constexpr const char* kNames[] = {"linear", "rectifier", "sigmoid", "tanh"};
    const char* text = PyUnicode_Check(name.ptr()) ? PyUnicode_AsUTF8(name.ptr()) : nullptr;
    if (text != nullptr)
        for (int kind = 0; kind < 4; ++kind)
            if (std::strcmp(text, kNames[kind]) == 0) return static_cast<ActivationKind>(kind);
    PyErr_Clear();
    throw InvalidArgument("the kind of an activation must be 'linear', 'rectifier', 'sigmoid' or 'tanh', got " +
                          std::string(py::repr(name)));
}

Activation make_activation(py::handle tuple, const char* name) {
    if (!PyTuple_Check(tuple.ptr()) || PyTuple_GET_SIZE(tuple.ptr()) != 2)
        throw py::type_error(std::string(name) + " must be a tuple (kind, slope), e.g. ('rectifier', 0.0), got " +
                             std::string(py::repr(tuple)));
    const double slope = PyFloat_AsDouble(PyTuple_GET_ITEM(tuple.ptr(), 1));
    if (slope == -1.0 && PyErr_Occurred()) throw py::error_already_set();
    return {activation_kind(PyTuple_GET_ITEM(tuple.ptr(), 0)), static_cast<float>(slope)};
}

namespace {

FloatArrays take_arrays(py::handle iterable, const char* name, Size size, bool none_allowed) {
    FloatArrays arrays;
    for (py::handle item : iterable) {
        const std::string label = std::string(name) + "[" + std::to_string(arrays.owners.size()) + "]";
        arrays.owners.push_back(py::reinterpret_borrow<py::object>(item));
        arrays.pointers.push_back(none_allowed ? optional1<const float>(item, label.c_str(), size).data
                                               : array1<const float>(item, label.c_str(), size).data);
    }
    return arrays;
}

// Bytes this process may still take, or infinity where the system does not say.
double available_memory() {
    double available = std::numeric_limits<double>::infinity();
    std::string line;
    for (std::ifstream meminfo("/proc/meminfo"); std::getline(meminfo, line);)
        if (line.rfind("MemAvailable:", 0) == 0) available = 1024.0 * std::strtod(line.c_str() + 13, nullptr);
    double limit = 0.0, used = 0.0;  // of a container, cgroup v2; "max" is no number
    if (std::ifstream("/sys/fs/cgroup/memory.max") >> limit && std::ifstream("/sys/fs/cgroup/memory.current") >> used)
        available = std::min(available, std::max(0.0, limit - used));
    return available;
}

std::string gib(double bytes) {
    char text[48];
    std::snprintf(text, sizeof text, "%.1f GiB", bytes / 1073741824.0);
    return text;
}

}  // namespace

void check_memory(double bytes, const std::string& what) {
    constexpr double kWorthAsking = 1 << 26;
    if (bytes < kWorthAsking) return;
    const double available = available_memory();
    if (bytes <= available) return;
    py::set_error(PyExc_MemoryError, (what + " needs about " + gib(bytes) + " but " + gib(available) +
                                      " are available; ask for fewer connections")
                                         .c_str());
    throw py::error_already_set();
}

FloatArrays float_arrays(py::handle iterable, const char* name, Size size) {
    return take_arrays(iterable, name, size, false);
}
FloatArrays optional_float_arrays(py::handle iterable, const char* name, Size size) {
    return take_arrays(iterable, name, size, true);
}

}  // namespace trulysparse::bindings
