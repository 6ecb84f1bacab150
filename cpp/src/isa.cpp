// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/isa.hpp"

#include <atomic>
#include <cstdlib>

#include "isa/table.hpp"
#include "trulysparse/types.hpp"

namespace trulysparse {

namespace {

constexpr Isa kAll[] = {Isa::baseline, Isa::avx2, Isa::avx512};
constexpr int kUnset = -1;
std::atomic<int> active{kUnset};

// The compiler's run-time check covers the operating system's saving of the wide registers too.
bool machine_has(Isa isa) {
    if (isa == Isa::baseline) return true;
#if TRULYSPARSE_X86
    __builtin_cpu_init();
    if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#else
    return false;
#endif
}

std::string join(const std::vector<Isa>& isas) {
    std::string names;
    for (Isa isa : isas) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
    return names;
}

void require_available(Isa isa, const std::string& where) {
    if (!machine_has(isa))
        throw InvalidArgument(where + ": this build on this machine does not have the instruction set '" +
                              isa_name(isa) + "'; available: " + join(available_isas()));
}

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::avx2:
            return "avx2";
        case Isa::avx512:
            return "avx512";
        default:
            return "baseline";
    }
}

Isa isa_from_name(const std::string& name) {
    for (Isa isa : kAll)
        if (name == isa_name(isa)) return isa;
    throw InvalidArgument("unknown instruction set '" + name + "'; allowed: " + join({kAll[0], kAll[1], kAll[2]}) +
                          ", of which this machine has " + join(available_isas()));
}

std::vector<Isa> available_isas() {
    std::vector<Isa> isas;
    for (Isa isa : kAll)
        if (machine_has(isa)) isas.push_back(isa);
    return isas;
}

Isa active_isa() {
    int isa = active.load(std::memory_order_relaxed);
    if (isa == kUnset) {
        Isa chosen = available_isas().back();
        const char* wanted = std::getenv("TRULYSPARSE_ISA");
        if (wanted && *wanted) {
            chosen = isa_from_name(wanted);
            require_available(chosen, "TRULYSPARSE_ISA");
        }
        // Another thread may have been first, or set_isa called meanwhile: what is set stays.
        if (active.compare_exchange_strong(isa, static_cast<int>(chosen))) isa = static_cast<int>(chosen);
    }
    return static_cast<Isa>(isa);
}

void set_isa(Isa isa) {
    require_available(isa, "set_isa");
    active.store(static_cast<int>(isa));
}

const KernelTable& active_kernels() {
#if TRULYSPARSE_X86
    switch (active_isa()) {
        case Isa::avx512:
            return avx512_kernels();
        case Isa::avx2:
            return avx2_kernels();
        default:
            break;
    }
#else
    active_isa();
#endif
    return baseline_kernels();
}

}  // namespace trulysparse
