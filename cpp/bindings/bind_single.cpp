// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/single.hpp"
#include "trulysparse/spmm.hpp"

namespace trulysparse::bindings {

namespace {

// A layer for prediction alone: its connections by target, with their weights in that order.
struct FrozenLayer {
    std::vector<py::object> owners;
    SingleLayer layer;
    WorkPlan plan;
};

template <class Offset>
FrozenLayer make_layer(std::int64_t inputs, std::int64_t outputs, py::object col_ptr, py::object row_idx,
                       py::object weights, py::object bias, py::handle activation, py::object trained, int threads) {
    check_threads(threads);
    SingleArgs<Offset> args;
    args.n_in = check_index(inputs, "n_in");
    args.n_out = check_index(outputs, "n_out");
    args.col_ptr = array1<const Offset>(col_ptr, "col_ptr", static_cast<Size>(args.n_out) + 1).data;
    const auto sources = array1<const Index>(row_idx, "row_idx");
    args.row_idx = sources.data;
    args.weights = array1<const float>(weights, "weights", sources.size).data;
    args.bias = array1<const float>(bias, "bias", args.n_out).data;
    args.activation = make_activation(activation, "activation");
    FrozenLayer frozen{{col_ptr, row_idx, weights, bias}, args, {}};
    if (!trained.is_none()) {
        if (args.activation.kind != ActivationKind::linear)
            throw InvalidArgument("trained parameters make the activation; it must be ('linear', 0.0) beside them");
        args.trained = trained_parameters(trained, "trained", args.n_out);
        frozen.layer = args;
        for (const auto& entry : py::reinterpret_borrow<py::dict>(trained))
            frozen.owners.push_back(py::reinterpret_borrow<py::object>(entry.second));
    }
    unlocked([&] {
        check_index_arrays<Offset>({args.n_out, args.col_ptr, "col_ptr", args.row_idx, args.n_in, "row_idx", nullptr},
                                   static_cast<std::uint64_t>(sources.size), threads);
        frozen.plan = plan_work(args.col_ptr, args.n_out);
    });
    return frozen;
}

FrozenLayer frozen_layer(std::int64_t inputs, std::int64_t outputs, py::object col_ptr, py::object row_idx,
                         py::object weights, py::object bias, py::handle activation, py::object trained, int threads) {
    return with_offset(col_ptr, "col_ptr", [&](auto tag) {
        return make_layer<typename decltype(tag)::type>(inputs, outputs, col_ptr, row_idx, weights, bias, activation,
                                                        trained, threads);
    });
}

void forward_frozen(const FrozenLayer& frozen, py::handle x, py::handle y, int threads) {
    check_threads(threads);
    std::visit(
        [&](const auto& layer) {
            const auto in = stored_activations<const void>(x, "x", layer.n_in);
            check_columns(in, "x");
            const auto out = stored_activations<void>(y, "y", layer.n_out, in.cols);
            if (layer.trained.left_slope && out.bf16)
                throw py::type_error("y must be float32 where the activation was trained, got " + describe(y));
            if (overlap(in, out)) throw InvalidArgument("y shares memory with x; give it an array of its own");
            ForwardArgs<std::remove_cv_t<std::remove_pointer_t<decltype(layer.col_ptr)>>> args;
            args.n_in = layer.n_in;
            args.n_out = layer.n_out;
            args.col_ptr = layer.col_ptr;
            args.row_idx = layer.row_idx;
            args.weights = layer.weights;
            args.bias = layer.bias;
            args.x = in.view();
            args.y = out.view();
            args.ld = static_cast<Index>(in.cols);
            args.activation = layer.activation;
            TrainedForwardArgs end;
            end.n = layer.n_out;
            end.ld = args.ld;
            end.parameters = layer.trained;
            end.z = out.bf16 ? nullptr : static_cast<float*>(out.data);
            end.y = out.view();
            unlocked([&] {
                forward(args, frozen.plan, threads);
                if (layer.trained.left_slope) trained_forward(end, threads);
            });
        },
        frozen.layer);
}

// A frozen network: layers whose sizes fit each other.
struct FrozenNetwork {
    std::vector<py::object> owners;
    std::vector<SingleLayer> layers;
    const float* shift = nullptr;
    const float* factor = nullptr;
    Index n_in = 0, n_out = 0;

    FrozenNetwork(const std::vector<py::object>& given, py::object shift_, py::object factor_)
        : owners(given.begin(), given.end()) {
        if (given.empty()) throw InvalidArgument("layers is empty; a network has at least one");
        for (const py::object& one : given) {
            layers.push_back(one.cast<const FrozenLayer&>().layer);
            std::visit(
                [&](const auto& layer) {
                    if (layers.size() > 1 && layer.n_in != n_out)
                        throw ShapeMismatch("layer " + std::to_string(layers.size() - 1) + " takes " +
                                            std::to_string(layer.n_in) + " values, but the one before it gives " +
                                            std::to_string(n_out));
                    if (layers.size() == 1) n_in = layer.n_in;
                    n_out = layer.n_out;
                },
                layers.back());
        }
        shift = optional1<const float>(shift_, "shift", n_in).data;
        factor = optional1<const float>(factor_, "factor", n_in).data;
        if ((shift == nullptr) != (factor == nullptr)) throw InvalidArgument("shift and factor go together");
        owners.push_back(std::move(shift_));
        owners.push_back(std::move(factor_));
    }

    bool run(py::handle samples, py::handle out, int threads) const {
        check_threads(threads);
        const auto in = array2<const float>(samples, "samples", kAny, n_in);
        const auto to = array2<float>(out, "out", in.rows, n_out);
        if (overlap(in, to)) throw InvalidArgument("out shares memory with samples; give it an array of its own");
        const Index count = check_index(in.rows, "samples");
        return unlocked([&] { return infer(layers, in.data, count, shift, factor, to.data, threads); });
    }
};

}  // namespace

void bind_single(py::module_& m) {
    py::class_<FrozenLayer>(m, "FrozenLayer");
    m.def("frozen_layer", &frozen_layer, "n_in"_a, "n_out"_a, "col_ptr"_a, "row_idx"_a, "weights"_a, "bias"_a,
          "activation"_a, "trained"_a, "threads"_a);
    m.def("forward_frozen", &forward_frozen, "layer"_a, "x"_a, "y"_a, "threads"_a);
    py::class_<FrozenNetwork>(m, "FrozenNetwork")
        .def(py::init([](const py::iterable& layers, py::object shift, py::object factor) {
                 std::vector<py::object> given;
                 for (py::handle layer : layers) given.push_back(py::reinterpret_borrow<py::object>(layer));
                 return FrozenNetwork(given, std::move(shift), std::move(factor));
             }),
             "layers"_a, "shift"_a, "factor"_a)
        .def("run", &FrozenNetwork::run, "samples"_a, "out"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
