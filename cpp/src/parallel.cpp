// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#endif
#ifdef __linux__
#include <sched.h>
#endif
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

#include "pause.hpp"

namespace trulysparse {

namespace {

std::atomic<bool> pool_started{false};
std::atomic<bool> forked{false};
thread_local bool inside = false;

// Marks this thread as working on items, so that a nested call runs serially.
struct Inside {
    Inside() { inside = true; }
    ~Inside() { inside = before; }
    bool before = inside;
};

void run_serially(std::int64_t items, detail::ItemFunction function, void* body) {
    const Inside mark;
    const FlushDenormals flush;
    for (std::int64_t item = 0; item < items; ++item) function(body, item, 0);
}

// Spins until `done` or for about `microseconds`; returns whether it was done.
template <class Done>
bool spin(int microseconds, Done done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
    do {
        for (int i = 0; i < 32; ++i) {
            if (done()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

// The same, but lets anything else that wants this core have it.
template <class Done>
bool give_way(int microseconds, Done done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
    do {
        if (done()) return true;
        std::this_thread::yield();
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

struct Job {
    std::int64_t items = 0;
    detail::ItemFunction function = nullptr;
    void* body = nullptr;
    std::atomic<std::int64_t> next{0};
    std::mutex guard;  // of what follows
    std::exception_ptr error;
    std::int64_t error_item = 0;

    void work(int thread) {
        const Inside mark;
        const FlushDenormals flush;
        for (std::int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
            try {
                function(body, item, thread);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(guard);
                next.store(items, std::memory_order_relaxed);
                // Items are taken in order and finished, so the lowest failing item is the same on any thread count.
                if (!error || item < error_item) {
                    error_item = item;
                    error = std::current_exception();
                }
            }
        }
    }
};

// While alive, threads made here are born deaf to signals, so that SIGINT and SIGTERM reach a thread of the caller's.
// Faults stay audible: blocked, they would end the process without a crash report.
class SignalsBlocked {
#if defined(__unix__) || defined(__APPLE__)
public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&all, fault);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

private:
    sigset_t before_;
#endif
};

// Linux may start or wake a thread on the core of the one that wakes it, though others are idle (a virtual machine's idle
// cores look taken), and move it only milliseconds later. So workers are told to wake elsewhere.
class Placement {
public:
    // Before a worker wakes, or just after it was made: away from this thread's core, if it has another one.
    void send_away(std::thread::native_handle_type worker) {
#ifdef __linux__
        const int here = sched_getcpu();
        if (here < 0 || pthread_getaffinity_np(pthread_self(), sizeof home_, &home_)) return;
        cpu_set_t away = home_;
        CPU_CLR(here, &away);
        if (CPU_COUNT(&away) > 0 && pthread_setaffinity_np(worker, sizeof away, &away) == 0) sent_ = true;
#else
        static_cast<void>(worker);
#endif
    }
    // The worker, awake: from now on it may run wherever the one who woke it may.
    void settle() {
#ifdef __linux__
        if (std::exchange(sent_, false)) pthread_setaffinity_np(pthread_self(), sizeof home_, &home_);
#endif
    }

private:
#ifdef __linux__
    cpu_set_t home_;
    bool sent_ = false;
#endif
};

// Threads that wait for jobs. A job never waits for a thread that has not begun to work on it: one that the system
// runs late (its core is busy with something else) finds the gate closed, and the others have done its share.
class Pool {
public:
    // False if another thread of the caller's uses the pool now.
    bool run(Job& job, int threads) {
        const std::unique_lock<std::mutex> only(one_job_, std::try_to_lock);
        if (!only.owns_lock()) return false;
        grow(threads - 1);
        job_ = &job;
        const std::uint64_t number = (gate_.load(std::memory_order_relaxed) >> kNumberShift) + 1;
        gate_.store(number << kNumberShift | kOpen | static_cast<std::uint64_t>(threads) << kThreadsShift);
        for (int thread = 1; thread < threads && thread <= workers_; ++thread) seats_[thread - 1].call();
        job.work(0);
        gate_.fetch_and(~kOpen);
        const auto left = [this] { return (gate_.load() & kInsideMask) == 0; };
        // A worker may have lost its core in the middle of an item; sleeping here gives it this one.
        if (!spin(kCallerSpin, left)) {
            std::unique_lock<std::mutex> lock(caller_);
            caller_sleeps_.store(true);
            done_.wait(lock, left);
            caller_sleeps_.store(false);
        }
        return true;
    }

private:
    // gate: number of the job | how many threads it is for | open | workers inside
    static constexpr int kNumberShift = 32, kThreadsShift = 16;
    static constexpr std::uint64_t kOpen = 1u << 15, kInsideMask = kOpen - 1, kThreadsMask = 0xffff;
    // Microseconds. A step's regions follow each other within the spin, steps within the yields; a thread that sleeps may
    // be woken on its caller's core and then waits milliseconds for another.
    static constexpr int kWorkerSpin = 50, kWorkerYield = 2000, kCallerSpin = 20;

    static bool admits(std::uint64_t gate, std::uint64_t seen, std::uint64_t thread) {
        return (gate & kOpen) && (gate >> kNumberShift) != seen && thread < (gate >> kThreadsShift & kThreadsMask);
    }

    // Where one worker sleeps. It says so before it looks at the gate a last time, and the caller opens the gate before
    // it looks for sleepers (all sequentially consistent): one of the two sees the other.
    struct alignas(64) Seat {
        std::atomic<bool> asleep{false};
        std::mutex guard;  // of `placement` too
        std::condition_variable wake;
        std::thread::native_handle_type worker{};
        Placement placement;

        template <class Ready>
        void sleep_until(Ready ready) {
            std::unique_lock<std::mutex> lock(guard);
            asleep.store(true);
            wake.wait(lock, ready);
            asleep.store(false);
            placement.settle();
        }
        void call() {
            if (!asleep.load()) return;
            {
                const std::lock_guard<std::mutex> it_waits(guard);  // not between its last look and its sleep
                placement.send_away(worker);
            }
            wake.notify_one();
        }
    };

    void grow(int workers) {
        workers = std::min(workers, most_workers_);
        if (workers_ >= workers) return;
        const SignalsBlocked mask;
        try {
            while (workers_ < workers) {
                Seat& seat = seats_[static_cast<std::size_t>(workers_)];
                const std::lock_guard<std::mutex> before_it_serves(seat.guard);
                std::thread worker([this, thread = workers_ + 1] { serve(thread); });
                seat.worker = worker.native_handle();
                seat.placement.send_away(seat.worker);
                worker.detach();
                ++workers_;
            }
        } catch (const std::system_error&) {
            // Fewer threads than asked for give the same result.
        }
    }

    [[noreturn]] void serve(int thread) {
        {
            const std::lock_guard<std::mutex> lock(seats_[thread - 1].guard);
            seats_[thread - 1].placement.settle();
        }
        const std::uint64_t own = static_cast<std::uint64_t>(thread);
        for (std::uint64_t seen = 0;;) {
            const auto admitted = [&] { return admits(gate_.load(), seen, own); };
            if (!spin(kWorkerSpin, admitted) && !give_way(kWorkerYield, admitted))
                seats_[thread - 1].sleep_until(admitted);
            std::uint64_t gate = gate_.load();
            while (admits(gate, seen, own) && !gate_.compare_exchange_weak(gate, gate + 1)) {
            }
            if (!admits(gate, seen, own)) continue;
            seen = gate >> kNumberShift;
            job_->work(thread);
            gate = gate_.fetch_sub(1);
            if ((gate & kInsideMask) == 1 && !(gate & kOpen) && caller_sleeps_.load()) {
                const std::lock_guard<std::mutex> lock(caller_);
                done_.notify_one();
            }
        }
    }

    alignas(64) std::atomic<std::uint64_t> gate_{0};
    alignas(64) std::atomic<bool> caller_sleeps_{false};
    Job* job_ = nullptr;
    int workers_ = 0;
    const int most_workers_ = std::min(std::max(16, 2 * available_cores()), kMostThreads);  // threads only take items
    const std::unique_ptr<Seat[]> seats_ = std::make_unique<Seat[]>(static_cast<std::size_t>(most_workers_));
    std::mutex one_job_, caller_;
    std::condition_variable done_;
};

// Never destroyed: its threads wait in it until the process ends.
Pool& pool() {
    static Pool* const the_pool = [] {
#if defined(__unix__) || defined(__APPLE__)
        pthread_atfork(nullptr, nullptr, [] { forked = pool_started.load(); });
#endif
        pool_started = true;
        return new Pool;
    }();
    return *the_pool;
}

int cgroup_cores() {
#ifdef __linux__
    if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
        char text[64] = {};
        const bool read = std::fgets(text, sizeof text, file) != nullptr;
        std::fclose(file);
        if (read) return detail::quota_cores(text);
    }
#endif
    return 0;
}

int affinity_cores() {
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

}  // namespace

int detail::quota_cores(const char* cpu_max) {
    long long quota = 0, period = 0;
    if (std::sscanf(cpu_max, "%lld %lld", &quota, &period) != 2 || quota <= 0 || period <= 0) return 0;
    const long long cores = quota / period + (quota % period != 0);
    return static_cast<int>(std::min<long long>(cores, 1 << 30));
}

int available_cores() {
    static const int quota = cgroup_cores();
    const int cores = affinity_cores();
    return quota > 0 ? std::min(cores, quota) : cores;
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
    threads = static_cast<int>(std::min<std::int64_t>(std::min(threads, kMostThreads), items));
    if (threads <= 1 || inside || forked) return run_serially(items, function, body);
    Job job;
    job.items = items;
    job.function = function;
    job.body = body;
    if (!pool().run(job, threads)) return run_serially(items, function, body);
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace trulysparse
