// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/types.hpp"

#include <doctest/doctest.h>

#include <utility>

using namespace trulysparse;

TEST_CASE("test_buffer_is_aligned_at_every_size") {
    for (std::size_t n : {0, 1, 15, 16, 17, 1000}) {
        const Buffer<float> buffer(n);
        CHECK(buffer.size() == n);
        CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % kAlignment == 0);
    }
    CHECK(Buffer<float>().data() == nullptr);
}

TEST_CASE("test_buffer_moves_and_releases_its_memory") {
    Buffer<std::int32_t> a(5, 7);
    for (std::int32_t v : a) CHECK(v == 7);
    std::int32_t* memory = a.data();
    Buffer<std::int32_t> b(std::move(a));
    CHECK(b.data() == memory);
    CHECK(a.size() == 0);
    Buffer<std::int32_t> c;
    c = std::move(b);
    CHECK(c.data() == memory);
    CHECK(c.size() == 5);
    std::int32_t* released = c.release();
    CHECK(released == memory);
    CHECK(c.size() == 0);
    CHECK(c.data() == nullptr);
    std::free(released);
}

TEST_CASE("test_buffer_refuses_a_size_whose_bytes_overflow") {
    const std::size_t most = std::numeric_limits<std::size_t>::max();
    CHECK_THROWS_AS(Buffer<double>{most / 8}, std::bad_alloc);
    CHECK_THROWS_AS(Buffer<char>{most}, std::bad_alloc);
}

TEST_CASE("test_buffer_says_how_many_bytes_it_could_not_get") {
    std::string message;
    try {
        Buffer<double>{std::numeric_limits<std::size_t>::max() / 8};
    } catch (const OutOfMemory& error) {
        message = error.what();
    }
    CHECK(message == "could not allocate an array of 2305843009213693951 elements of 8 bytes (17179869184.0 GiB)");
}

TEST_CASE("test_padded_is_the_next_multiple_of_the_lane") {
    CHECK(padded(0) == 0);
    CHECK(padded(1) == 16);
    CHECK(padded(16) == 16);
    CHECK(padded(17) == 32);
}
