// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/words.hpp"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <limits>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "pause.hpp"

namespace trulysparse {

namespace {

using Clock = std::chrono::steady_clock;

// Beyond this a timeout is as good as none, and below it nothing overflows.
constexpr double kForever = 1e9;

timespec duration(double seconds) {
    timespec time;
    time.tv_sec = static_cast<time_t>(seconds);
    time.tv_nsec = static_cast<long>((seconds - static_cast<double>(time.tv_sec)) * 1e9);
    return time;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

std::int32_t load_word(const std::int32_t* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }

void store_word(std::int32_t* word, std::int32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

std::int32_t add_word(std::int32_t* word, std::int32_t value) {
    return __atomic_add_fetch(word, value, __ATOMIC_ACQ_REL);
}

int wake_word(std::int32_t* word) {
#ifdef __linux__
    // Without the private flag, here and below: who waits may be another process.
    return static_cast<int>(
        std::max(syscall(SYS_futex, word, FUTEX_WAKE, std::numeric_limits<int>::max(), nullptr, nullptr, 0), 0L));
#else
    static_cast<void>(word);
    return 0;
#endif
}

bool detail::wait_by_polling(const std::int32_t* word, std::int32_t expected, double timeout_seconds) {
    const auto start = Clock::now();
    double nap = 50e-6;
    for (;;) {
        if (load_word(word) != expected) return true;
        const double left = timeout_seconds - seconds_since(start);
        if (!(left > 0.0)) return false;
        const timespec time = duration(std::min(nap, left));
        if (nanosleep(&time, nullptr) != 0) return load_word(word) != expected;  // a signal
        nap = std::min(1.25 * nap, 1e-3);
    }
}

bool wait_word(const std::int32_t* word, std::int32_t expected, double timeout_seconds,
               std::int64_t spin_microseconds) {
    if (load_word(word) != expected) return true;
    if (!(timeout_seconds > 0.0)) return false;
    if (spin_microseconds > 0) {
        const auto start = Clock::now();
        const double spin_seconds = std::min(1e-6 * static_cast<double>(spin_microseconds), timeout_seconds);
        while (seconds_since(start) < spin_seconds)
            for (int look = 0; look < 16; ++look) {
                if (load_word(word) != expected) return true;
                pause();
            }
        timeout_seconds -= seconds_since(start);
        if (!(timeout_seconds > 0.0)) return false;
    }
#ifdef __linux__
    // The kernel looks at the word once more before it sleeps, so a wake in between is not lost.
    const bool ends = timeout_seconds < kForever;
    const timespec time = duration(ends ? timeout_seconds : 0.0);
    syscall(SYS_futex, word, FUTEX_WAIT, expected, ends ? &time : nullptr, nullptr, 0);
    return load_word(word) != expected;
#else
    return detail::wait_by_polling(word, expected, timeout_seconds);
#endif
}

}  // namespace trulysparse
