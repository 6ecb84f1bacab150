// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/loss.hpp"

namespace trulysparse::bindings {

namespace {

py::tuple to_tuple(const LossSum& sum) { return py::make_tuple(sum.loss, sum.correct); }

// delta may be z itself, or None.
float* delta_for(const Array2<const float>& z, py::handle delta) {
    if (delta.is_none()) return nullptr;
    const auto out = activations<float>(delta, "delta", z.rows, z.cols);
    check_same_or_apart(out, "delta", z, "z");
    return out.data;
}

py::tuple cross_entropy(py::handle z, py::handle labels, float scale, py::handle delta, int threads) {
    check_threads(threads);
    const auto outputs = activations<const float>(z, "z");
    const auto y = array1<const std::int32_t>(labels, "labels");
    const Index batch = check_batch(y.size, outputs.cols, "z"), n = check_index(outputs.rows, "n");
    for (Size b = 0; b < y.size; ++b)
        if (y.data[b] < 0 || y.data[b] >= n)
            throw InvalidArgument("labels must be between 0 and " + std::to_string(n - 1) + ", got " +
                                  std::to_string(y.data[b]) + " at position " + std::to_string(b));
    float* out = delta_for(outputs, delta);
    return to_tuple(unlocked([&] {
        return softmax_cross_entropy(outputs.data, y.data, n, batch, static_cast<Index>(outputs.cols), scale, out,
                                     threads);
    }));
}

using TargetLoss = LossSum (*)(const float*, const float*, Index, Index, Index, float, float*, int);
template <TargetLoss loss>
py::tuple with_targets(py::handle z, py::handle targets, std::int64_t batch, float scale, py::handle delta,
                       int threads) {
    check_threads(threads);
    const auto outputs = activations<const float>(z, "z");
    const auto t = activations<const float>(targets, "targets", outputs.rows, outputs.cols);
    const Index columns = check_batch(batch, outputs.cols, "z"), n = check_index(outputs.rows, "n");
    float* out = delta_for(outputs, delta);
    if (out != nullptr && overlap(out, bytes_of(outputs), t.data, bytes_of(t)))
        throw InvalidArgument("delta shares memory with targets; give it an array of its own, or z itself");
    return to_tuple(unlocked(
        [&] { return loss(outputs.data, t.data, n, columns, static_cast<Index>(outputs.cols), scale, out, threads); }));
}

using Link = void (*)(const float*, Index, Index, Index, float*, int);
template <Link link>
void probabilities(py::handle z, std::int64_t batch, py::handle proba, int threads) {
    check_threads(threads);
    const auto outputs = activations<const float>(z, "z");
    const auto out = activations<float>(proba, "proba", outputs.rows, outputs.cols);
    check_same_or_apart(out, "proba", outputs, "z");
    const Index columns = check_batch(batch, outputs.cols, "z"), n = check_index(outputs.rows, "n");
    unlocked([&] { link(outputs.data, n, columns, static_cast<Index>(outputs.cols), out.data, threads); });
}

}  // namespace

void bind_loss(py::module_& m) {
    m.def("softmax_cross_entropy", &cross_entropy, "z"_a, "labels"_a, "scale"_a, "delta"_a, "threads"_a);
    m.def("binary_cross_entropy", &with_targets<&binary_cross_entropy>, "z"_a, "targets"_a, "batch"_a, "scale"_a,
          "delta"_a, "threads"_a);
    m.def("mean_squared_error", &with_targets<&mean_squared_error>, "z"_a, "targets"_a, "batch"_a, "scale"_a, "delta"_a,
          "threads"_a);
    m.def("softmax", &probabilities<&softmax>, "z"_a, "batch"_a, "proba"_a, "threads"_a);
    m.def("sigmoid", &probabilities<&sigmoid>, "z"_a, "batch"_a, "proba"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
