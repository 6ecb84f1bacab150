// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace trulysparse {

namespace {

std::atomic<bool> region_ran{false};
std::atomic<bool> forked{false};
thread_local bool inside = false;

// Marks this thread as working on items, so that a nested call runs serially.
struct Inside {
    Inside() { inside = true; }
    ~Inside() { inside = before; }
    bool before = inside;
};

#ifdef _OPENMP
void before_first_region() {
#if defined(__unix__) || defined(__APPLE__)
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { forked = region_ran.load(); }); });
#endif
    region_ran = true;
}
#endif

void run_serially(std::int64_t items, detail::ItemFunction function, void* body) {
    const Inside mark;
    const FlushDenormals flush;
    for (std::int64_t item = 0; item < items; ++item) function(body, item, 0);
}

}  // namespace

int available_cores() {
#ifdef __linux__
    // The kernel refuses a mask smaller than its own, so the mask grows until it fits.
    for (int cpus = CPU_SETSIZE; cpus <= CPU_SETSIZE << 8; cpus *= 2) {
        std::vector<cpu_set_t> mask(static_cast<std::size_t>(cpus / CPU_SETSIZE));
        const std::size_t bytes = mask.size() * sizeof(cpu_set_t);
        if (sched_getaffinity(0, bytes, mask.data()) == 0) return std::max(1, CPU_COUNT_S(bytes, mask.data()));
    }
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

bool forked_after_parallel() { return forked; }

#if defined(__SSE2__) || defined(_M_X64)
FlushDenormals::FlushDenormals() : saved_(_mm_getcsr()) {
    _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040u);  // flush to zero, denormals are zero
}
FlushDenormals::~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(saved_)); }
#elif defined(__aarch64__)
FlushDenormals::FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved_ | 1ull << 24));  // FZ
}
FlushDenormals::~FlushDenormals() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
FlushDenormals::FlushDenormals() : saved_(0) {}
FlushDenormals::~FlushDenormals() { static_cast<void>(saved_); }
#endif

void detail::parallel_for(std::int64_t items, int threads, ItemFunction function, void* body) {
    if (items <= 0) return;
#ifdef _OPENMP
    threads = static_cast<int>(std::min<std::int64_t>(threads, items));
    if (threads <= 1 || inside || forked || omp_in_parallel()) return run_serially(items, function, body);
    before_first_region();
    std::atomic<std::int64_t> next{0};
    std::mutex guard;
    std::exception_ptr error;
    std::int64_t error_item = items;
#pragma omp parallel num_threads(threads)
    {
        const Inside mark;
        const FlushDenormals flush;
        const int thread = omp_get_thread_num();
        for (std::int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
            try {
                function(body, item, thread);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(guard);
                next.store(items, std::memory_order_relaxed);
                // Items are taken in order and finished, so the lowest failing item is the same on any thread count.
                if (item < error_item) {
                    error_item = item;
                    error = std::current_exception();
                }
            }
        }
    }
    if (error) std::rethrow_exception(error);
#else
    static_cast<void>(threads);
    run_serially(items, function, body);
#endif
}

}  // namespace trulysparse
