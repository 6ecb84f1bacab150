// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/trained.hpp"

namespace trulysparse::bindings {

namespace {

// The array called `key` in a dict, (n), or (1) if `one_is_enough`.
template <class Float>
Array1<Float> entry(const py::dict& dict, const char* name, const char* key, Index n, bool one_is_enough = false) {
    const std::string label = std::string(name) + "['" + key + "']";
    const auto a = array1<Float>(dict[key], label.c_str());
    if (a.size != n && !(one_is_enough && a.size == 1))
        throw ShapeMismatch(label + " must have " + std::to_string(n) + " values, one a neuron" +
                            (one_is_enough ? ", or 1 for all of them" : "") + ", got " + std::to_string(a.size));
    return a;
}

template <class Float>
TrainedArrays<Float> trained_arrays(py::handle object, const char* name, Index n) {
    static constexpr const char* kKeys[] = {"left_slope", "left_threshold", "right_threshold", "right_slope"};
    if (!py::isinstance<py::dict>(object))
        throw py::type_error(std::string(name) + " must be a dict of arrays, got " + describe(object));
    const auto dict = py::reinterpret_borrow<py::dict>(object);
    TrainedArrays<Float> arrays;
    if (dict.size() == 1 && dict.contains("slope")) {
        const auto slope = entry<Float>(dict, name, "slope", n, true);
        arrays.left_slope = slope.data;
        arrays.shared = slope.size != n;
        return arrays;
    }
    bool all = dict.size() == 4;
    for (const char* key : kKeys) all = all && dict.contains(key);
    if (!all)
        throw InvalidArgument(std::string(name) +
                              " must have the key 'slope', or 'left_threshold', 'left_slope', 'right_threshold' and "
                              "'right_slope', got " +
                              std::string(py::repr(py::list(dict))));
    Float** const places[] = {&arrays.left_slope, &arrays.left_threshold, &arrays.right_threshold, &arrays.right_slope};
    for (int k = 0; k < 4; ++k) *places[k] = entry<Float>(dict, name, kKeys[k], n).data;
    return arrays;
}

void forward_trained(py::handle z, py::handle y, py::handle parameters, std::int64_t dropout_threshold, py::handle kept,
                     std::uint64_t seed, std::int64_t layer, std::int64_t step, std::int64_t column_offset,
                     int threads) {
    check_threads(threads);
    const auto in = activations<const float>(z, "z");
    check_columns(in, "z");
    const auto out = stored_activations<void>(y, "y", in.rows, in.cols);
    check_same_or_apart(out, "y", in, "z");
    if (out.bf16 && overlap(out, in)) throw InvalidArgument("a bfloat16 y shares memory with z; give it its own");
    if (column_offset % 8 != 0)
        throw InvalidArgument("column_offset must be a multiple of 8, got " + std::to_string(column_offset));
    TrainedForwardArgs args;
    args.n = check_index(in.rows, "n");
    args.ld = static_cast<Index>(in.cols);
    args.parameters = trained_parameters(parameters, "parameters", args.n);
    args.z = in.data;
    args.y = out.view();
    args.dropout.threshold = check_threshold(dropout_threshold, "dropout_threshold");
    args.dropout.stream = make_stream(seed, static_cast<int>(Purpose::dropout), layer, step);
    args.dropout.column_offset = check_index(column_offset, "column_offset");
    args.kept = optional2<std::uint16_t>(kept, "kept", in.rows, in.cols / kLane).data;
    unlocked([&] { trained_forward(args, threads); });
}

void backward_trained(py::handle z, py::handle delta, py::handle parameters, py::handle gradients, py::handle row_sum,
                      std::int64_t dropout_threshold, py::handle kept, int threads) {
    check_threads(threads);
    const auto in = activations<const float>(z, "z");
    check_columns(in, "z");
    const auto d = stored_activations<void>(delta, "delta", in.rows, in.cols);
    if (overlap(d, in)) throw InvalidArgument("delta shares memory with z; give it an array of its own");
    TrainedBackwardArgs args;
    args.n = check_index(in.rows, "n");
    args.ld = static_cast<Index>(in.cols);
    args.parameters = trained_parameters(parameters, "parameters", args.n);
    args.gradients = trained_arrays<float>(gradients, "gradients", args.n);
    if (args.gradients.shared != args.parameters.shared ||
        (args.gradients.left_threshold == nullptr) != (args.parameters.left_threshold == nullptr))
        throw ShapeMismatch("gradients must have the keys and lengths of parameters");
    if (args.gradients.left_slope == args.parameters.left_slope)
        throw InvalidArgument("gradients shares memory with parameters; give it arrays of its own");
    args.z = in.data;
    args.delta = d.view();
    args.row_sum = optional1<float>(row_sum, "row_sum", in.rows).data;
    Dropout dropout;
    dropout.threshold = check_threshold(dropout_threshold, "dropout_threshold");
    args.dropout_scale = dropout.scale();
    const auto written = optional2<const std::uint16_t>(kept, "kept", in.rows, in.cols / kLane);
    if (dropout.threshold != 0 && written.data == nullptr)
        throw InvalidArgument("dropout needs kept, the bits that trained_forward wrote");
    if (dropout.threshold != 0) args.kept = written.data;
    unlocked([&] { trained_backward(args, threads); });
}

}  // namespace

TrainedParameters trained_parameters(py::handle dict, const char* name, Index n) {
    return trained_arrays<const float>(dict, name, n);
}

void bind_trained(py::module_& m) {
    m.def("trained_forward", &forward_trained, "z"_a, "y"_a, "parameters"_a, py::kw_only(), "dropout_threshold"_a = 0,
          "kept"_a = py::none(), "seed"_a = 0, "layer"_a = 0, "step"_a = 0, "column_offset"_a = 0, "threads"_a);
    m.def("trained_backward", &backward_trained, "z"_a, "delta"_a, "parameters"_a, "gradients"_a, py::kw_only(),
          "row_sum"_a = py::none(), "dropout_threshold"_a = 0, "kept"_a = py::none(), "threads"_a);
}

}  // namespace trulysparse::bindings
