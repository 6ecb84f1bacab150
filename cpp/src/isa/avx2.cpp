// SPDX-License-Identifier: BSD-3-Clause
#define TRULYSPARSE_ISA_NAMESPACE avx2
#include "vec_avx2.hpp"

#include "body.hpp"

namespace trulysparse {

const KernelTable& avx2_kernels() { return avx2::kTable; }

}  // namespace trulysparse
