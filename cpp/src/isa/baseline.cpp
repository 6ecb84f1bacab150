// SPDX-License-Identifier: BSD-3-Clause
#define TRULYSPARSE_ISA_NAMESPACE baseline
#include "table.hpp"
#if TRULYSPARSE_X86
#include "vec_sse2.hpp"
#else
#include "vec_portable.hpp"
#endif

#include "body.hpp"

namespace trulysparse {

const KernelTable& baseline_kernels() { return baseline::kTable; }

}  // namespace trulysparse
