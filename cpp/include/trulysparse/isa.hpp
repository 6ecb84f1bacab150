// SPDX-License-Identifier: BSD-3-Clause
// Which instruction set the vector kernels use: the best this machine has, unless TRULYSPARSE_ISA or set_isa says less.
#pragma once

#include <string>
#include <vector>

namespace trulysparse {

enum class Isa { baseline, avx2, avx512 };  // baseline is SSE2 on x86-64, NEON on aarch64

const char* isa_name(Isa isa);
Isa isa_from_name(const std::string& name);  // InvalidArgument names the allowed ones
std::vector<Isa> available_isas();           // lowest first; what this build and this machine both have
Isa active_isa();                            // first use reads TRULYSPARSE_ISA; an unknown or unavailable name throws
void set_isa(Isa isa);                       // process-wide, for tests and benchmarks; not while kernels run

}  // namespace trulysparse
