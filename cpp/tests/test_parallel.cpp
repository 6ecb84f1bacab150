// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/parallel.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#ifdef __linux__
#include <sched.h>
#endif

#include "../src/blocks.hpp"
#include "testing.hpp"

using namespace trulysparse;

TEST_CASE("test_parallel_for_runs_every_item_once") {
    for (int threads : {-1, 0, 1, 2, 7})
        for (std::int64_t items : {-3, 0, 1, 2, 3, 1000}) {
            std::vector<std::atomic<int>> runs(1000);
            std::atomic<bool> thread_in_range{true};
            parallel_for(items, threads, [&](std::int64_t item, int thread) {
                ++runs[static_cast<std::size_t>(item)];
                if (thread < 0 || thread >= std::max(threads, 1)) thread_in_range = false;
            });
            bool once = true;
            for (std::int64_t i = 0; i < 1000; ++i) once &= runs[static_cast<std::size_t>(i)] == (i < items ? 1 : 0);
            CHECK(once);
            CHECK(thread_in_range);
        }
}

TEST_CASE("test_parallel_for_uses_as_many_threads_as_asked") {
    std::atomic<int> waiting{0};
    std::vector<std::thread::id> ids(3);
    parallel_for(3, 3, [&](std::int64_t item, int) {
        ids[static_cast<std::size_t>(item)] = std::this_thread::get_id();
        ++waiting;
        while (waiting < 3) std::this_thread::yield();  // each item needs a thread of its own to end
    });
    const bool distinct = ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2];
    CHECK(distinct);
}

TEST_CASE("test_parallel_for_serves_callers_on_several_threads_at_once") {
    std::atomic<int> runs{0};
    std::vector<std::thread> callers;
    for (int c = 0; c < 4; ++c)
        callers.emplace_back([&] {
            for (int repeat = 0; repeat < 200; ++repeat) parallel_for(25, 3, [&](std::int64_t, int) { ++runs; });
        });
    for (std::thread& caller : callers) caller.join();
    CHECK(runs == 4 * 200 * 25);
}

TEST_CASE("test_parallel_for_many_short_regions_lose_no_item_and_no_wakeup") {
    std::int64_t sum = 0;
    for (int repeat = 0; repeat < 20000; ++repeat) {
        std::atomic<int> runs{0};
        parallel_for(3, repeat % 4 + 1, [&](std::int64_t, int) { runs.fetch_add(1, std::memory_order_relaxed); });
        sum += runs;
        if (repeat % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // workers fall asleep
    }
    CHECK(sum == 60000);
}

TEST_CASE("test_parallel_for_few_threads_after_many_lose_no_item_and_no_wakeup") {
    std::atomic<int> runs{0};
    parallel_for(64, 16, [&](std::int64_t, int) { ++runs; });  // workers that the regions below do not admit
    CHECK(runs == 64);
    std::int64_t sum = 0;
    for (int repeat = 0; repeat < 300; ++repeat) {
        if (repeat % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));  // workers fall asleep
        std::atomic<int> waiting{0};
        parallel_for(3, 3, [&](std::int64_t, int thread) {
            if (thread > 2) sum = -1000;
            ++waiting;
            while (waiting < 3) std::this_thread::yield();  // ends only if both workers were woken
        });
        sum += waiting;
    }
    CHECK(sum == 900);
}

TEST_CASE("test_signals_go_to_threads_of_the_caller") {
    sigset_t before, mine;
    REQUIRE(pthread_sigmask(SIG_SETMASK, nullptr, &before) == 0);
    const std::thread::id here = std::this_thread::get_id();
    std::atomic<int> waiting{0}, deaf{0}, hears_faults{0};
    parallel_for(3, 3, [&](std::int64_t, int) {
        ++waiting;
        while (waiting < 3) std::this_thread::yield();  // each item on a thread of its own
        if (std::this_thread::get_id() == here) return;
        sigset_t mask;
        pthread_sigmask(SIG_SETMASK, nullptr, &mask);
        deaf += sigismember(&mask, SIGINT) == 1 && sigismember(&mask, SIGTERM) == 1;
        hears_faults += sigismember(&mask, SIGSEGV) == 0;
    });
    CHECK(deaf == 2);
    CHECK(hears_faults == 2);
    REQUIRE(pthread_sigmask(SIG_SETMASK, nullptr, &mine) == 0);
    for (int signal : {SIGINT, SIGTERM, SIGCHLD}) CHECK(sigismember(&mine, signal) == sigismember(&before, signal));
}

TEST_CASE("test_parallel_for_takes_an_absurd_number_of_threads") {
    std::atomic<int> runs{0};
    std::atomic<int> highest{0};
    parallel_for(5000, 1 << 30, [&](std::int64_t, int thread) {
        ++runs;
        for (int seen = highest; thread > seen && !highest.compare_exchange_weak(seen, thread);) {
        }
    });
    CHECK(runs == 5000);
    CHECK(highest < kMostThreads);
}

TEST_CASE("test_parallel_for_rethrows_the_exception_of_the_lowest_failing_item") {
    for (int threads : testing::kThreads)
        for (int repeat = 0; repeat < 20; ++repeat) {
            std::string message;
            try {
                parallel_for(500, threads, [&](std::int64_t item, int) {
                    if (item % 7 == 6) throw std::out_of_range("item " + std::to_string(item));
                });
            } catch (const std::out_of_range& error) {
                message = error.what();
            }
            CHECK(message == "item 6");
        }
    std::atomic<int> runs{0};
    parallel_for(10, 2, [&](std::int64_t, int) { ++runs; });
    CHECK(runs == 10);
}

TEST_CASE("test_parallel_for_nested_runs_serially") {
    for (int outer_threads : {1, 2}) {
        std::atomic<int> runs{0}, other_threads{0};
        parallel_for(4, outer_threads, [&](std::int64_t, int) {
            const std::thread::id outer = std::this_thread::get_id();
            parallel_for(5, 7, [&](std::int64_t, int thread) {
                ++runs;
                if (thread != 0 || std::this_thread::get_id() != outer) ++other_threads;
            });
        });
        CHECK(runs == 20);
        CHECK(other_threads == 0);
    }
}

#if defined(__SSE2__) || defined(__aarch64__)
namespace {
bool denormals_live() {
    volatile float small = 1e-30f, tiny = 1e-40f, large = 1e30f;
    volatile float as_result = small * 1e-10f, as_input = tiny * large;
    CHECK((as_result == 0.0f) == (as_input == 0.0f));
    return as_input != 0.0f;
}
}  // namespace

TEST_CASE("test_denormals_are_flushed_inside_and_restored_after") {
    REQUIRE(denormals_live());
    for (int threads : testing::kThreads) {
        std::atomic<int> live{0};
        parallel_for(50, threads, [&](std::int64_t, int) { live += denormals_live(); });
        CHECK(live == 0);
        CHECK(denormals_live());
        CHECK_THROWS(parallel_for(50, threads, [&](std::int64_t, int) { throw std::runtime_error("stop"); }));
        CHECK(denormals_live());
    }
    {
        const FlushDenormals outer;
        CHECK_FALSE(denormals_live());
        {
            const FlushDenormals inner;
        }
        CHECK_FALSE(denormals_live());
    }
    CHECK(denormals_live());
}
#endif

TEST_CASE("test_forked_child_runs_with_one_thread") {
    std::atomic<int> runs{0};
    parallel_for(10, 2, [&](std::int64_t, int) { ++runs; });
    CHECK(runs == 10);
    CHECK_FALSE(forked_after_parallel());
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);  // a hang must end the child, not the test run
        int sum = 0;
        bool one_thread = true;
        const std::thread::id here = std::this_thread::get_id();
        parallel_for(100, 7, [&](std::int64_t item, int thread) {
            one_thread &= thread == 0 && std::this_thread::get_id() == here;
            sum += static_cast<int>(item);
        });
        one_thread &= forked_after_parallel();
        _exit(one_thread && sum == 4950 ? 0 : 1);
    }
    REQUIRE(child > 0);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK_FALSE(forked_after_parallel());
}

TEST_CASE("test_available_cores_follows_the_affinity_mask") {
    CHECK(available_cores() >= 1);
#ifdef __linux__
    cpu_set_t before, one;
    REQUIRE(sched_getaffinity(0, sizeof before, &before) == 0);
    CHECK(available_cores() <= CPU_COUNT(&before));  // fewer under a CPU quota
    int first = 0;
    while (!CPU_ISSET(first, &before)) ++first;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(available_cores() == 1);
    REQUIRE(sched_setaffinity(0, sizeof before, &before) == 0);
#endif
}

TEST_CASE("test_a_cpu_quota_is_rounded_up_to_cores") {
    CHECK(detail::quota_cores("max 100000\n") == 0);
    CHECK(detail::quota_cores("100000 100000\n") == 1);
    CHECK(detail::quota_cores("50000 100000\n") == 1);
    CHECK(detail::quota_cores("250000 100000\n") == 3);
    CHECK(detail::quota_cores("400000 100000") == 4);
    for (const char* nonsense : {"", "max", "100000", "0 100000", "-1 100000", "100000 0"})
        CHECK(detail::quota_cores(nonsense) == 0);
}

TEST_CASE("test_chunks_cover_every_length_once") {
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    for (std::int64_t n :
         {std::int64_t{0}, std::int64_t{1}, std::int64_t{65536}, std::int64_t{65537}, most - 1, most}) {
        const Chunks chunks(n, 65536);
        CHECK(chunks.count() <= 1024);
        std::int64_t at = 0;
        for (std::int64_t c = 0; c < chunks.count(); ++c) {
            CHECK(chunks.begin(c) == at);
            CHECK(chunks.end(c) > at);
            at = chunks.end(c);
        }
        CHECK(at == n);
    }
}

#ifdef __linux__
TEST_CASE("test_workers_may_run_wherever_their_caller_may") {
    cpu_set_t mine;
    REQUIRE(sched_getaffinity(0, sizeof mine, &mine) == 0);
    for (int round = 0; round < 5; ++round) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));  // workers sleep, and are woken somewhere else
        std::atomic<int> restricted{0};
        parallel_for(64, 4, [&](std::int64_t, int) {
            cpu_set_t here;
            if (sched_getaffinity(0, sizeof here, &here) != 0 || !CPU_EQUAL(&here, &mine)) ++restricted;
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        });
        CHECK(restricted == 0);
    }
}
#endif
