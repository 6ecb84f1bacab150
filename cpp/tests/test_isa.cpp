// SPDX-License-Identifier: BSD-3-Clause
#include "trulysparse/isa.hpp"

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "isa/table.hpp"
#include "testing.hpp"
#include "trulysparse/types.hpp"

using namespace trulysparse;

TEST_CASE("baseline_is_always_available_and_names_go_both_ways") {
    CHECK(available_isas().front() == Isa::baseline);
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) CHECK(isa_from_name(isa_name(isa)) == isa);
}

TEST_CASE("unknown_names_are_refused_with_the_allowed_ones") {
    for (const char* name : {"", "sse9", "AVX2"}) {
        std::string message;
        try {
            isa_from_name(name);
        } catch (const InvalidArgument& error) {
            message = error.what();
        }
        for (const char* allowed : {"baseline", "avx2", "avx512"}) CHECK(message.find(allowed) != std::string::npos);
    }
}

TEST_CASE("set_isa_takes_what_is_available_and_refuses_the_rest") {
    const Isa before = active_isa();
    const std::vector<Isa> available = available_isas();
    for (Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (std::find(available.begin(), available.end(), isa) != available.end()) {
            set_isa(isa);
            CHECK(active_isa() == isa);
        } else {
            CHECK_THROWS_AS(set_isa(isa), InvalidArgument);
        }
    }
    set_isa(before);
}

TEST_CASE("the_active_isa_is_one_that_is_available") {
    const std::vector<Isa> available = available_isas();
    CHECK(std::find(available.begin(), available.end(), active_isa()) != available.end());
}

TEST_CASE("kernels_end_the_process_at_a_width_that_they_do_not_serve") {
    testing::for_each_isa([&](Isa) {
        const KernelTable& kernels = active_kernels();
        for (Index width : {0, 8, 24, 2 * kernels.widest_tile})
            for (bool forward : {true, false}) {
                const pid_t child = fork();
                if (child == 0) {
                    const rlimit no_core{0, 0};
                    setrlimit(RLIMIT_CORE, &no_core);
                    if (forward)
                        kernels.forward(ForwardBlock{}, width);
                    else
                        kernels.backward(BackwardBlock{}, width);
                    _exit(0);  // nothing said
                }
                REQUIRE(child > 0);
                int status = 0;
                CHECK(waitpid(child, &status, 0) == child);
                const bool silent = WIFEXITED(status) && WEXITSTATUS(status) == 0;
                CHECK_FALSE(silent);
            }
    });
}
