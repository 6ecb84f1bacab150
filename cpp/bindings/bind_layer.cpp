// SPDX-License-Identifier: BSD-3-Clause
#include <memory>

#include "common.hpp"
#include "trulysparse/backward.hpp"
#include "trulysparse/single.hpp"
#include "trulysparse/spmm.hpp"
#include "trulysparse/work.hpp"
#include "update_params.hpp"

namespace trulysparse::bindings {

namespace {

// The checked pointers of one layer and how its work is cut, made once per pattern so that a step checks only activations.
template <class Offset>
struct LayerView {
    Index n_in, n_out;
    py::object row_ptr_owner, col_idx_owner, col_ptr_owner, row_idx_owner, perm_owner, weights_owner, bias_owner;
    PatternView<Offset> pattern;
    const Offset* col_ptr = nullptr;  // nullptr: without a second index, for the backward pass alone
    const Index* row_idx = nullptr;
    const Offset* perm = nullptr;  // nullptr: the forward pass is given the weights in its order
    const float* weights;          // written only by the sgd sink, which asks whether it may
    const float* bias;

    LayerView(std::int64_t inputs, std::int64_t outputs, py::object row_ptr_, py::object col_idx_, py::object col_ptr_,
              py::object row_idx_, py::object perm_, py::object weights_, py::object bias_, bool trusted, int threads)
        : row_ptr_owner(std::move(row_ptr_)),
          col_idx_owner(std::move(col_idx_)),
          col_ptr_owner(std::move(col_ptr_)),
          row_idx_owner(std::move(row_idx_)),
          perm_owner(std::move(perm_)),
          weights_owner(std::move(weights_)),
          bias_owner(std::move(bias_)) {
        check_threads(threads);
        pattern = pattern_view<Offset>(inputs, outputs, row_ptr_owner, col_idx_owner);
        n_in = pattern.rows;
        n_out = pattern.cols;
        const Size nnz = pattern.nnz();
        if (col_ptr_owner.is_none() != row_idx_owner.is_none() || (col_ptr_owner.is_none() && !perm_owner.is_none()))
            throw py::type_error("col_ptr and row_idx must be given together, and perm only with them");
        if (!col_ptr_owner.is_none()) {
            col_ptr = array1<const Offset>(col_ptr_owner, "col_ptr", static_cast<Size>(n_out) + 1).data;
            row_idx = array1<const Index>(row_idx_owner, "row_idx", nnz).data;
        }
        perm = optional1<const Offset>(perm_owner, "perm", nnz).data;
        weights = array1<const float>(weights_owner, "weights", nnz).data;
        bias = array1<const float>(bias_owner, "bias", n_out).data;
        const auto connections = static_cast<std::uint64_t>(nnz);
        py::gil_scoped_release release;
        if (!trusted) {
            check_index_arrays<Offset>({n_in, pattern.row_ptr, "row_ptr", pattern.col_idx, n_out, "col_idx", nullptr},
                                       connections, threads);
            if (col_ptr)
                check_index_arrays<Offset>({n_out, col_ptr, "col_ptr", row_idx, n_in, "row_idx", perm}, connections,
                                           threads);
        }
    }

    // Made by the first pass that wants it, while it still holds the interpreter's lock: a view that serves one
    // direction has no plan of the other.
    const WorkPlan& forward_plan() const {
        if (!forward_) forward_ = std::make_unique<WorkPlan>(plan_work(col_ptr, n_out));
        return *forward_;
    }
    const WorkPlan& backward_plan() const {
        if (!backward_) backward_ = std::make_unique<WorkPlan>(plan_work(pattern.row_ptr, n_in));
        return *backward_;
    }

private:
    mutable std::unique_ptr<WorkPlan> forward_, backward_;
};

// What backward does with the weight gradients, and the arrays it needs for that.
struct Sink {
    GradientSink::Mode mode = GradientSink::Mode::none;
    py::object array;  // gradient or velocity
    SgdParams sgd;

    GradientSink resolve(Size nnz) const {
        GradientSink sink;
        sink.mode = mode;
        sink.sgd = sgd;
        if (mode == GradientSink::Mode::sgd)
            sink.velocity = array1<float>(array, "the sink's velocity", nnz).data;
        else if (mode != GradientSink::Mode::none)
            sink.gradient = array1<float>(array, "the sink's gradient", nnz).data;
        return sink;
    }
};

Sink sgd_sink(py::object velocity, float lr, float momentum, float decay, py::handle form, bool nesterov, bool first,
              bool last, float l2) {
    array1<float>(velocity, "velocity");
    if (nesterov && !(first && last))
        throw InvalidArgument(
            "Nesterov momentum cannot gather micro-batches in its velocity (first and last must both be true); "
            "use sink_accumulate and sgd_step");
    return {GradientSink::Mode::sgd,
            std::move(velocity),
            {lr, momentum, decay, decay_form(form), nesterov, first, last, l2}};
}

Sink gradient_sink(GradientSink::Mode mode, py::object gradient) {
    array1<float>(gradient, "gradient");
    return {mode, std::move(gradient), {}};
}

std::uint16_t* bits(py::handle object, const char* name, Index rows, Size ld) {
    return optional2<std::uint16_t>(object, name, rows, ld / kLane).data;
}
const std::uint16_t* read_bits(py::handle object, const char* name, Index rows, Size ld) {
    return optional2<const std::uint16_t>(object, name, rows, ld / kLane).data;
}

template <class Offset>
void forward_layer(const LayerView<Offset>& view, py::handle x, py::handle y, py::handle activation,
                   std::int64_t dropout_threshold, py::handle negative, py::handle kept, std::uint64_t seed,
                   std::int64_t layer, std::int64_t step, std::int64_t column_offset, py::handle by_target,
                   int threads) {
    check_threads(threads);
    const auto in = stored_activations<const void>(x, "x", view.n_in);
    check_columns(in, "x");
    const auto out = stored_activations<void>(y, "y", view.n_out, in.cols);
    if (overlap(in, out)) throw InvalidArgument("y shares memory with x; the forward pass needs an array of its own");
    if (column_offset % 8 != 0)
        throw InvalidArgument("column_offset must be a multiple of 8, got " + std::to_string(column_offset));

    if (!view.col_ptr)
        throw InvalidArgument(
            "this view has no second index, which the forward pass walks; give it col_ptr and row_idx");
    if (!view.perm && by_target.is_none())
        throw InvalidArgument("this view has no perm, so the forward pass needs by_target: the weights in its order");
    ForwardArgs<Offset> args;
    args.n_in = view.n_in;
    args.n_out = view.n_out;
    args.col_ptr = view.col_ptr;
    args.row_idx = view.row_idx;
    const auto in_order = optional1<const float>(by_target, "by_target", view.pattern.nnz());
    args.perm = by_target.is_none() ? view.perm : nullptr;
    args.weights = by_target.is_none() ? view.weights : in_order.data;
    args.bias = view.bias;
    args.x = in.view();
    args.y = out.view();
    args.ld = static_cast<Index>(in.cols);
    args.activation = make_activation(activation, "activation");
    args.dropout.threshold = check_threshold(dropout_threshold, "dropout_threshold");
    args.dropout.stream = make_stream(seed, static_cast<int>(Purpose::dropout), layer, step);
    args.dropout.column_offset = check_index(column_offset, "column_offset");
    args.bits.negative = bits(negative, "negative", view.n_out, in.cols);
    args.bits.kept = bits(kept, "kept", view.n_out, in.cols);
    const WorkPlan& plan = view.forward_plan();
    unlocked([&] { forward(args, plan, threads); });
}

template <class Offset>
void backward_layer(const LayerView<Offset>& view, py::handle dy, py::handle x, py::handle dx, py::handle row_sum,
                    py::handle below, std::int64_t below_dropout_threshold, py::handle below_negative,
                    py::handle below_kept, py::handle below_slope_gradient, const Sink& sink, int threads) {
    check_threads(threads);
    const auto delta = stored_activations<const void>(dy, "dy", view.n_out);
    check_columns(delta, "dy");
    const auto input = stored_activations<const void>(x, "x", view.n_in, delta.cols);
    const auto below_delta =
        dx.is_none() ? StoredArray<void>{} : stored_activations<void>(dx, "dx", view.n_in, delta.cols);
    if (!dx.is_none() && below_delta.bf16 != input.bf16)
        throw py::type_error("dx must have the dtype of x, got " + describe(dx) + " beside " + describe(x));
    if (overlap(below_delta, delta)) throw InvalidArgument("dx shares memory with dy; give it an array of its own");
    check_same_or_apart(below_delta, "dx", input, "x");
    if (dx.is_none() && !row_sum.is_none())
        throw InvalidArgument("row_sum adds up dx, so it needs a dx that is not None");

    BackwardArgs<Offset> args;
    args.n_in = view.n_in;
    args.n_out = view.n_out;
    args.row_ptr = view.pattern.row_ptr;
    args.col_idx = view.pattern.col_idx;
    args.weights = const_cast<float*>(view.weights);  // written by the sgd sink alone
    args.dy = delta.view();
    args.x = input.view();
    args.dx = below_delta.view();
    args.dx_row_sum = optional1<float>(row_sum, "row_sum", view.n_in).data;
    args.ld = static_cast<Index>(delta.cols);
    args.below = make_activation(below, "below");
    Dropout dropout;
    dropout.threshold = check_threshold(below_dropout_threshold, "below_dropout_threshold");
    args.below_dropout_scale = dropout.scale();
    // The kernel only reads these planes; BitPlanes serves the forward pass too, which writes them.
    args.below_bits.negative =
        const_cast<std::uint16_t*>(read_bits(below_negative, "below_negative", view.n_in, delta.cols));
    const std::uint16_t* kept_below = read_bits(below_kept, "below_kept", view.n_in, delta.cols);
    if (dropout.threshold != 0) args.below_bits.kept = const_cast<std::uint16_t*>(kept_below);  // else never written
    if (!dx.is_none() && args.below.kind == ActivationKind::rectifier && args.below_bits.negative == nullptr)
        throw InvalidArgument("a rectifier below needs below_negative, the bits that its forward pass wrote");
    if (!dx.is_none() && dropout.threshold != 0 && args.below_bits.kept == nullptr)
        throw InvalidArgument("dropout below needs below_kept, the bits that its forward pass wrote");
    args.below_slope_gradient = optional1<float>(below_slope_gradient, "below_slope_gradient", 1).data;
    if (args.below_slope_gradient != nullptr) {
        if (dx.is_none() || args.below.kind != ActivationKind::rectifier)
            throw InvalidArgument("below_slope_gradient needs a rectifier below and a dx that is not None");
        if (args.below.slope == 0.0f)
            throw InvalidArgument(
                "below_slope_gradient reads z = a / slope off the stored a, so the slope below must not be 0");
    }
    args.sink = sink.resolve(view.pattern.nnz());
    if (sink.mode == GradientSink::Mode::sgd && !py::reinterpret_borrow<py::array>(view.weights_owner).writeable())
        throw_read_only("weights");
    const float* sunk = args.sink.velocity ? args.sink.velocity : args.sink.gradient;
    const std::size_t bytes = static_cast<std::size_t>(view.pattern.nnz()) * sizeof(float);
    if (sunk && overlap(sunk, bytes, view.weights, bytes))
        throw InvalidArgument("the sink's array shares memory with weights; give it an array of its own");
    const WorkPlan& plan = view.backward_plan();
    unlocked([&] { backward(args, plan, threads); });
}

// The weights as they are now, in the order of the second index.
template <class Offset>
void weights_by_target(const LayerView<Offset>& view, py::handle out, int threads) {
    check_threads(threads);
    const auto to = array1<float>(out, "out", view.pattern.nnz());
    const std::size_t bytes = bytes_of(to);
    if (overlap(to.data, bytes, view.weights, bytes))
        throw InvalidArgument("out shares memory with weights; give it an array of its own");
    if (!view.col_ptr)
        throw InvalidArgument(
            "this view has no second index, in whose order the weights are wanted; use transpose_values");
    const auto n = static_cast<std::uint64_t>(to.size);
    unlocked([&] {
        if (view.perm)
            gather(view.perm, view.weights, n, to.data, threads);
        else
            order_by_target(view.pattern, view.weights, to.data, threads);
    });
}

template <class Offset>
void bind_for_offset(py::module_& m, const char* name) {
    using View = LayerView<Offset>;
    py::class_<View>(m, name)
        .def(py::init<std::int64_t, std::int64_t, py::object, py::object, py::object, py::object, py::object,
                      py::object, py::object, bool, int>(),
             "n_in"_a, "n_out"_a, "row_ptr"_a, "col_idx"_a, "col_ptr"_a, "row_idx"_a, "perm"_a, "weights"_a, "bias"_a,
             "trusted"_a = false, "threads"_a = 1)
        .def_readonly("n_in", &View::n_in)
        .def_readonly("n_out", &View::n_out)
        .def_property_readonly("nnz", [](const View& view) { return view.pattern.nnz(); })
        .def_readonly("weights", &View::weights_owner)
        .def_readonly("bias", &View::bias_owner);
    m.def("forward", &forward_layer<Offset>, "view"_a, "x"_a, "y"_a, py::kw_only(), "activation"_a,
          "dropout_threshold"_a = 0, "negative"_a = py::none(), "kept"_a = py::none(), "seed"_a = 0, "layer"_a = 0,
          "step"_a = 0, "column_offset"_a = 0, "by_target"_a = py::none(), "threads"_a);
    m.def("weights_by_target", &weights_by_target<Offset>, "view"_a, "out"_a, "threads"_a);
    m.def("backward", &backward_layer<Offset>, "view"_a, "dy"_a, "x"_a, "dx"_a, py::kw_only(), "row_sum"_a = py::none(),
          "below"_a = py::make_tuple("linear", 0.0), "below_dropout_threshold"_a = 0, "below_negative"_a = py::none(),
          "below_kept"_a = py::none(), "below_slope_gradient"_a = py::none(), "sink"_a, "threads"_a);
}

void sum_rows(py::handle delta, py::handle out, int threads) {
    check_threads(threads);
    const auto d = activations<const float>(delta, "delta");
    const auto sums = array1<float>(out, "out", d.rows);
    unlocked([&] { row_sums(d.data, check_index(d.rows, "n"), static_cast<Index>(d.cols), sums.data, threads); });
}

}  // namespace

void bind_layer(py::module_& m) {
    using Mode = GradientSink::Mode;
    py::class_<Sink>(m, "Sink");
    m.def("sink_none", [] { return Sink{}; });
    m.def(
        "sink_store", [](py::object gradient) { return gradient_sink(Mode::store, std::move(gradient)); },
        "gradient"_a);
    m.def(
        "sink_accumulate", [](py::object gradient) { return gradient_sink(Mode::accumulate, std::move(gradient)); },
        "gradient"_a);
    m.def("sink_sgd", &sgd_sink, "velocity"_a, "lr"_a, "momentum"_a, "decay"_a, "form"_a, "nesterov"_a,
          "first"_a = true, "last"_a = true, "l2"_a = 0.0f);
    bind_for_offset<std::int32_t>(m, "LayerView32");
    bind_for_offset<std::int64_t>(m, "LayerView64");
    m.def("row_sums", &sum_rows, "delta"_a, "out"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
