// SPDX-License-Identifier: BSD-3-Clause
// Words of 32 bits through which threads and processes that share memory tell each other what is done, and sleep until
// it is. A word must lie in memory that all of them map, at a multiple of 4 bytes, and is only touched from here.
#pragma once

#include <cstdint>

namespace trulysparse {

// Sees everything that was written before the store_word or add_word whose value it returns.
std::int32_t load_word(const std::int32_t* word);
void store_word(std::int32_t* word, std::int32_t value);
// Returns the new value; past the largest number the smallest follows.
std::int32_t add_word(std::int32_t* word, std::int32_t value);

// Wakes everyone who sleeps on the word, in any process; returns how many (0 where that is not known).
int wake_word(std::int32_t* word);

// True, and what was written before it is seen, once the word is not `expected`; false after `timeout_seconds` (at
// least 0, may be infinite), after a signal, or where it was woken with the word unchanged. First spins for
// `spin_microseconds`, then sleeps in the kernel: a change is only noticed there if wake_word follows it.
bool wait_word(const std::int32_t* word, std::int32_t expected, double timeout_seconds, std::int64_t spin_microseconds);

namespace detail {
// The sleep of systems without futex: looks every 50 microseconds, later every millisecond, and needs no wake_word.
bool wait_by_polling(const std::int32_t* word, std::int32_t expected, double timeout_seconds);
}  // namespace detail

}  // namespace trulysparse
