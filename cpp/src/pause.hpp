// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace trulysparse {

// Tells the core that a loop only waits, so that it leaves its resources to the other thread on it.
inline void pause() {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

}  // namespace trulysparse
