// SPDX-License-Identifier: BSD-3-Clause
// All kernels over one Vec, instantiated once per instruction set in that set's own namespace. No std containers or
// algorithms here: their templates would be compiled with flags that other files must not see.
#pragma once

#include "table.hpp"
// after table.hpp
#include "body_math.hpp"
// after body_math.hpp
#include "body_elements.hpp"
#include "body_missing.hpp"
#include "body_normals.hpp"
#include "body_probe.hpp"
#include "body_random.hpp"
#include "body_rows.hpp"
// after body_rows.hpp
#include "body_trained.hpp"

namespace trulysparse {
namespace TRULYSPARSE_ISA_NAMESPACE {

static const KernelTable kTable = {8 * kWidth,
                                   forward_body<>,
                                   backward_body<>,
                                   kept_bits_body,
                                   normals_body,
                                   sgd_body,
                                   adam_body,
                                   add_body,
                                   average_body,
                                   softmax16_body,
                                   sigmoid_body,
                                   tanh_body,
                                   logistic16_body,
                                   trained_forward_body,
                                   trained_backward_body,
                                   kChains * kWidth,
                                   fma_rounds_body,
                                   sum_floats_body,
                                   sum_rows_body<>,
                                   kTileRows,
                                   kTileVectors * kWidth,
                                   kWidth,
                                   gradient_reach_body,
                                   gradient_update_body,
                                   reach_body,
                                   dot_body};

}  // namespace TRULYSPARSE_ISA_NAMESPACE
}  // namespace trulysparse
