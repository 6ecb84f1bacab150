// SPDX-License-Identifier: BSD-3-Clause
#include <cmath>

#include "update_params.hpp"

namespace trulysparse::bindings {

Decay decay_form(py::handle name) {
    const std::string form = PyUnicode_Check(name.ptr()) ? name.cast<std::string>() : std::string(py::repr(name));
    if (form == "paper") return Decay::paper;
    if (form == "l2") return Decay::l2;
    throw InvalidArgument("the form of weight decay must be 'paper' or 'l2', got '" + form + "'");
}

namespace {

void sgd(py::handle w, py::handle v, py::handle g, float lr, float momentum, float decay, py::handle form,
         bool nesterov, float l2, bool first, bool last, int threads) {
    check_threads(threads);
    if (nesterov && !(first && last))
        throw InvalidArgument(
            "Nesterov momentum cannot gather micro-batches in its velocity: first and last must be true");
    const auto weights = array1<float>(w, "w");
    const auto velocity = array1<float>(v, "v", weights.size);
    const auto gradient = array1<const float>(g, "g", weights.size);
    const SgdParams params{lr, momentum, decay, decay_form(form), nesterov, first, last, l2};
    unlocked([&] {
        sgd_step(weights.data, velocity.data, gradient.data, static_cast<std::uint64_t>(weights.size), params, threads);
    });
}

void adam(py::handle w, py::handle m, py::handle v, py::handle g, double lr, double beta1, double beta2, double eps,
          double decay, bool decoupled, std::int64_t step, double l2, py::object age, int threads) {
    check_threads(threads);
    if (step < 1) throw InvalidArgument("Adam's step counts from 1, got " + std::to_string(step));
    const auto weights = array1<float>(w, "w");
    const auto first = array1<float>(m, "m", weights.size);
    const auto second = array1<float>(v, "v", weights.size);
    const auto gradient = array1<const float>(g, "g", weights.size);
    AdamParams params;
    params.lr = static_cast<float>(lr);
    params.beta1 = static_cast<float>(beta1);
    params.beta2 = static_cast<float>(beta2);
    params.eps = static_cast<float>(eps);
    params.decay = static_cast<float>(decay);
    params.correction1 = static_cast<float>(1.0 - std::pow(beta1, static_cast<double>(step)));
    params.correction2 = static_cast<float>(1.0 - std::pow(beta2, static_cast<double>(step)));
    params.decoupled = decoupled;
    params.l2 = static_cast<float>(l2);
    if (!age.is_none()) {
        const auto ages = array1<float>(age, "age", weights.size);
        unlocked([&] {
            adam_step_aged(weights.data, first.data, second.data, ages.data, gradient.data,
                           static_cast<std::uint64_t>(weights.size), params, threads);
        });
        return;
    }
    unlocked([&] {
        adam_step(weights.data, first.data, second.data, gradient.data, static_cast<std::uint64_t>(weights.size),
                  params, threads);
    });
}

double squares(py::handle g, int threads) {
    check_threads(threads);
    const auto gradient = array1<const float>(g, "g");
    return unlocked([&] { return sum_of_squares(gradient.data, static_cast<std::uint64_t>(gradient.size), threads); });
}

void multiply(py::handle g, float factor, int threads) {
    check_threads(threads);
    const auto gradient = array1<float>(g, "g");
    unlocked([&] { scale(gradient.data, static_cast<std::uint64_t>(gradient.size), factor, threads); });
}

void mean(py::handle arrays, py::handle out, int threads) {
    check_threads(threads);
    const auto result = array1<float>(out, "out");
    const FloatArrays values = float_arrays(arrays, "arrays", result.size);
    if (values.pointers.empty()) throw InvalidArgument("the mean of no arrays is not defined; give at least one");
    for (std::size_t k = 0; k < values.pointers.size(); ++k)
        check_same_or_apart(result, "out", Array1<const float>{values.pointers[k], result.size},
                            ("arrays[" + std::to_string(k) + "]").c_str());
    unlocked([&] {
        average(values.pointers.data(), values.pointers.size(), result.data, static_cast<std::uint64_t>(result.size),
                threads);
    });
}

}  // namespace

void bind_update(py::module_& m) {
    m.def("sgd_step", &sgd, "w"_a, "v"_a, "g"_a, py::kw_only(), "lr"_a, "momentum"_a, "decay"_a, "form"_a, "nesterov"_a,
          "l2"_a = 0.0f, "first"_a = true, "last"_a = true, "threads"_a = 1);
    m.def("adam_step", &adam, "w"_a, "m"_a, "v"_a, "g"_a, py::kw_only(), "lr"_a, "beta1"_a, "beta2"_a, "eps"_a,
          "decay"_a, "decoupled"_a, "step"_a, "l2"_a = 0.0, "age"_a = py::none(), "threads"_a = 1);
    m.def("sum_of_squares", &squares, "g"_a, "threads"_a = 1);
    m.def("average", &mean, "arrays"_a, "out"_a, "threads"_a = 1);
    m.def("scale", &multiply, "g"_a, "factor"_a, "threads"_a = 1);
}

}  // namespace trulysparse::bindings
