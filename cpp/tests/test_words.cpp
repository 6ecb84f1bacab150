// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/words.hpp"

#include <doctest/doctest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <thread>
#include <vector>

using namespace trulysparse;

namespace {

constexpr double kLong = 61.0;  // a wake that is lost shows as a failure, not as a hang
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Two threads hand a word to and fro `rounds` times, each with a plain number that only the word guards; the sum.
std::int64_t ping_pong(int rounds, const std::function<bool(const std::int32_t*, std::int32_t)>& wait) {
    alignas(64) std::int32_t ping = 0;
    alignas(64) std::int32_t pong = 0;
    std::int64_t parcel = 0;
    std::atomic<bool> lost{false};
    const auto start = std::chrono::steady_clock::now();
    // A wake that comes late ends a later wait with false, so only time tells that one was lost.
    const auto wait_for = [&](const std::int32_t& word, std::int32_t old) {
        while (!lost && load_word(&word) == old)
            if (!wait(&word, old) && std::chrono::steady_clock::now() - start > std::chrono::seconds(60)) lost = true;
    };
    std::thread other([&] {
        for (std::int32_t round = 0; round < rounds && !lost; ++round) {
            wait_for(ping, round);
            parcel += round;
            add_word(&pong, 1);
            wake_word(&pong);
        }
    });
    for (std::int32_t round = 0; round < rounds && !lost; ++round) {
        parcel += 1;
        store_word(&ping, round + 1);
        wake_word(&ping);
        wait_for(pong, round);
    }
    store_word(&ping, -1);
    wake_word(&ping);
    other.join();
    return lost ? -1 : parcel;
}

}  // namespace

TEST_CASE("test_words_are_loaded_stored_and_added_to") {
    std::int32_t word = 5;
    CHECK(load_word(&word) == 5);
    store_word(&word, -7);
    CHECK(load_word(&word) == -7);
    CHECK(add_word(&word, 10) == 3);
    CHECK(add_word(&word, -4) == -1);
    store_word(&word, std::numeric_limits<std::int32_t>::max());
    CHECK(add_word(&word, 1) == std::numeric_limits<std::int32_t>::min());
}

TEST_CASE("test_no_wake_is_lost_and_words_guard_what_was_written_before") {
    const int rounds = 2000;
    const std::int64_t expected = rounds + static_cast<std::int64_t>(rounds) * (rounds - 1) / 2;
    for (std::int64_t spin : {0, 1, 50})
        CHECK(ping_pong(rounds, [&](const std::int32_t* word, std::int32_t old) {
                  return wait_word(word, old, kLong, spin);
              }) == expected);
    CHECK(ping_pong(100, [](const std::int32_t* word, std::int32_t old) {
              return detail::wait_by_polling(word, old, kLong);
          }) == 100 + 4950);
}

TEST_CASE("test_wait_word_returns_at_once_where_the_word_differs") {
    const std::int32_t word = 1;
    CHECK(wait_word(&word, 0, kInfinity, 0));
    CHECK(wait_word(&word, 0, 0.0, 0));
    CHECK(detail::wait_by_polling(&word, 0, kInfinity));
}

TEST_CASE("test_wait_word_is_false_when_the_time_is_out_and_not_before") {
    const std::int32_t word = 1;
    CHECK_FALSE(wait_word(&word, 1, 0.0, 1000000000));
    CHECK_FALSE(detail::wait_by_polling(&word, 1, 0.0));
    for (std::int64_t spin : {0, 100, 1000000000}) {
        const auto start = std::chrono::steady_clock::now();
        CHECK_FALSE(wait_word(&word, 1, 0.02, spin));
        CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > 0.019);
    }
    const auto start = std::chrono::steady_clock::now();
    CHECK_FALSE(detail::wait_by_polling(&word, 1, 0.02));
    CHECK(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > 0.019);
}

TEST_CASE("test_wake_word_wakes_all_waiters") {
    std::int32_t word = 0;
    std::atomic<int> awake{0};
    std::vector<std::thread> sleepers;
    for (int s = 0; s < 5; ++s)
        sleepers.emplace_back([&] {
            while (!wait_word(&word, 0, kLong, 0)) continue;
            ++awake;
        });
    add_word(&word, 1);
    wake_word(&word);
    for (auto& sleeper : sleepers) sleeper.join();
    CHECK(awake == 5);
    CHECK(wake_word(&word) == 0);
}

#ifdef __linux__
TEST_CASE("test_a_wake_without_a_change_ends_the_wait_with_false") {
    std::int32_t word = 0;
    std::atomic<int> result{-1};
    std::thread sleeper([&] { result = wait_word(&word, 0, kInfinity, 0); });
    while (wake_word(&word) == 0) std::this_thread::yield();  // until it sleeps
    sleeper.join();
    CHECK(result == 0);
}
#endif

TEST_CASE("test_a_signal_ends_the_wait_with_false") {
    struct sigaction action = {}, before;
    action.sa_handler = [](int) {};
    REQUIRE(sigaction(SIGUSR1, &action, &before) == 0);
    const std::int32_t word = 0;
    for (bool polling : {false, true}) {
        std::atomic<int> result{-1};
        std::thread sleeper([&] {
            result = polling ? detail::wait_by_polling(&word, 0, kInfinity) : wait_word(&word, 0, kInfinity, 0);
        });
        while (result == -1) {  // a signal may come before it sleeps
            pthread_kill(sleeper.native_handle(), SIGUSR1);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        sleeper.join();
        CHECK(result == 0);
    }
    sigaction(SIGUSR1, &before, nullptr);
}
