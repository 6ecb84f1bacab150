// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "common.hpp"
#include "trulysparse/update.hpp"

namespace trulysparse::bindings {

Decay decay_form(py::handle name);  // "paper" or "l2"

}  // namespace trulysparse::bindings
