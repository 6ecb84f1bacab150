// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"

#include <cstring>

namespace trulysparse::bindings {

std::string describe(py::handle object) {
    if (!py::isinstance<py::array>(object)) return py::str(py::type::handle_of(object).attr("__name__"));
    const auto array = py::reinterpret_borrow<py::array>(object);
    return std::string(py::str(array.dtype())) + " of shape " + std::string(py::str(array.attr("shape")));
}

void throw_not_array(py::handle object, const char* name, const py::dtype& expected) {
    const std::string type = py::str(expected), what(name);
    if (!py::isinstance<py::array>(object))
        throw py::type_error(what + " must be a NumPy array of " + type + ", got " + describe(object) +
                             "; make one with np.array(..., dtype=np." + type + ")");
    const auto array = py::reinterpret_borrow<py::array>(object);
    if (array.dtype().equal(expected))
        throw py::type_error(what + " must be C-contiguous, got " + describe(object) + " with strides " +
                             std::string(py::str(array.attr("strides"))) +
                             "; arrays are never copied silently, use np.ascontiguousarray(...)");
    throw py::type_error(what + " must be an array of " + type + ", got " + describe(object) +
                         "; arrays are never converted silently, use .astype(np." + type + ")");
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

std::vector<const float*> float_arrays(py::handle sequence, const char* name, Size size) {
    std::vector<const float*> pointers;
    for (py::handle item : sequence) {
        const std::string label = std::string(name) + "[" + std::to_string(pointers.size()) + "]";
        pointers.push_back(array1<const float>(item, label.c_str(), size).data);
    }
    return pointers;
}

}  // namespace trulysparse::bindings
