// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"

using namespace trulysparse::bindings;

PYBIND11_MODULE(_core, m) {
    m.doc() = "The compiled core. Only trulysparse._kernels imports it.";
    m.attr("LANE") = trulysparse::kLane;
    m.attr("ALIGNMENT") = trulysparse::kAlignment;
    py::register_local_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(error);
        } catch (const ShapeMismatch& mismatch) {
            py::set_error(py::module_::import("trulysparse.errors").attr("ShapeError"), mismatch.what());
        }
    });
    bind_isa(m);
    bind_rng(m);
    bind_pattern(m);
    bind_sample(m);
    bind_select(m);
    bind_update(m);
    bind_layer(m);
    bind_single(m);
    bind_trained(m);
    bind_loss(m);
    bind_missing(m);
    bind_artificial(m);
    bind_augment(m);
    bind_batch(m);
    bind_probe(m);
    bind_words(m);
}
