// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/words.hpp"

#include <cmath>

#include "common.hpp"

namespace trulysparse::bindings {

namespace {

template <class Word>
Word* word_at(py::handle words, std::int64_t index) {
    const auto array = array1<Word>(words, "words");
    if (array.size == 0) throw py::index_error("words is empty; make one with a word for everyone who waits");
    if (index < 0 || index >= array.size)
        throw py::index_error("index must be between 0 and " + std::to_string(array.size - 1) +
                              ", the last of words, got " + std::to_string(index));
    return array.data + index;
}

bool wait_for_change(py::handle words, std::int64_t index, std::int32_t expected, double timeout_seconds,
                     std::int64_t spin_microseconds) {
    const std::int32_t* const word = word_at<const std::int32_t>(words, index);
    if (!(timeout_seconds >= 0.0))
        throw InvalidArgument("timeout_seconds must be at least 0 (math.inf waits forever), got " +
                              std::to_string(timeout_seconds));
    if (spin_microseconds < 0)
        throw InvalidArgument("spin_microseconds must be at least 0 (no spinning), got " +
                              std::to_string(spin_microseconds));
    const bool changed = unlocked([&] { return wait_word(word, expected, timeout_seconds, spin_microseconds); });
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    return changed;
}

}  // namespace

void bind_words(py::module_& m) {
    m.def(
        "load_word",
        [](py::handle words, std::int64_t index) { return load_word(word_at<const std::int32_t>(words, index)); },
        "words"_a, "index"_a, "Return words[index], seeing what was written before it was stored or added to.");
    m.def(
        "store_word",
        [](py::handle words, std::int64_t index, std::int32_t value) {
            store_word(word_at<std::int32_t>(words, index), value);
        },
        "words"_a, "index"_a, "value"_a, "Set words[index] and publish what was written before.");
    m.def(
        "add_word",
        [](py::handle words, std::int64_t index, std::int32_t value) {
            return add_word(word_at<std::int32_t>(words, index), value);
        },
        "words"_a, "index"_a, "value"_a,
        "Add to words[index], publish what was written before, and return the new value.");
    m.def(
        "wake_word",
        [](py::handle words, std::int64_t index) { return wake_word(word_at<std::int32_t>(words, index)); }, "words"_a,
        "index"_a, "Wake all who sleep on words[index], in any process; return how many (0 if not known).");
    m.def(
        "wait_word", &wait_for_change, "words"_a, "index"_a, "expected"_a, "timeout_seconds"_a,
        "spin_microseconds"_a = 0,
        "Sleep until words[index] is not `expected` (True), or until the time is out, a signal came, or it was woken\n"
        "unchanged (False); wait in a loop. Spins first for `spin_microseconds`.");
}

}  // namespace trulysparse::bindings
