// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/isa.hpp"
#include "trulysparse/parallel.hpp"

namespace trulysparse::bindings {

namespace {

py::tuple isa_names() {
    py::list names;
    for (Isa isa : available_isas()) names.append(isa_name(isa));
    return py::tuple(names);
}

}  // namespace

void bind_isa(py::module_& m) {
    m.attr("MOST_THREADS") = kMostThreads;
    m.def("available_cores", &available_cores);
    m.def("isa", [] { return isa_name(active_isa()); });
    m.def("available_isas", &isa_names);
    m.def("set_isa", [](const std::string& name) { set_isa(isa_from_name(name)); }, "name"_a);

    py::dict info;
    info["version"] = TRULYSPARSE_VERSION;
    info["compiler"] = TRULYSPARSE_COMPILER;
    info["build_type"] = TRULYSPARSE_BUILD_TYPE;
    info["flags"] = TRULYSPARSE_FLAGS;
    m.attr("BUILD_INFO") = info;
}

}  // namespace trulysparse::bindings
