// SPDX-License-Identifier: BSD-3-Clause
// The one door to threads: a pool of our own, because a barrier that waits for threads which the system has not run yet
// costs a scheduler quantum wherever a core is shared. It lives beside any OpenMP that other libraries bring.
#pragma once

#include <cstdint>
#include <type_traits>

namespace trulysparse {

// No region uses more threads than this, whatever is asked for; memory for each thread may be sized by it.
constexpr int kMostThreads = 1024;

// Cores this process may run on, at least 1: those of its affinity mask, or fewer where a container's CPU quota
// (cgroup v2, read once) lets it use less.
int available_cores();

// True in a child made by fork() after the pool was started: its threads did not survive, so one thread serves.
bool forked_after_parallel();

// Flushes denormals to zero in this thread while alive, then restores what was set before.
class FlushDenormals {
public:
    FlushDenormals();
    ~FlushDenormals();
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;

private:
    unsigned long long saved_;
};

namespace detail {
// Cores that the text of a cgroup's cpu.max ("quota period" in microseconds) is worth, rounded up; 0: no limit.
int quota_cores(const char* cpu_max);

using ItemFunction = void (*)(void* body, std::int64_t item, int thread);
void parallel_for(std::int64_t items, int threads, ItemFunction function, void* body);
}  // namespace detail

// Calls body(item, thread) once for every item in [0, items); thread < min(threads, kMostThreads). Items are taken, never defined, by the
// threads: what an item computes may not depend on `thread` (it only picks scratch memory). The exception of the
// lowest item that threw is rethrown here after all threads have left. Denormals are flushed inside. Nested calls run
// serially.
template <class Body>
void parallel_for(std::int64_t items, int threads, Body&& body) {
    using B = std::remove_reference_t<Body>;
    detail::parallel_for(
        items, threads, [](void* b, std::int64_t item, int thread) { (*static_cast<B*>(b))(item, thread); },
        const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace trulysparse
