// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"

namespace trulysparse::bindings {

namespace {

py::array philox(std::uint64_t seed, int purpose, std::int64_t layer, std::int64_t step, std::uint64_t index) {
    const Block block = draw(make_stream(seed, purpose, layer, step), index);
    return py::array_t<std::uint32_t>(static_cast<Size>(block.size()), block.data());
}

py::array shuffle_order(std::int64_t n, std::uint64_t seed, int purpose, std::int64_t layer, std::int64_t step) {
    const Stream stream = make_stream(seed, purpose, layer, step);
    Buffer<std::int64_t> order(check_count(n, "n"));
    unlocked([&] { shuffle(n, stream, order.data()); });
    return to_numpy(std::move(order));
}

}  // namespace

void bind_rng(py::module_& m) {
    py::dict purposes;
    for (auto [name, purpose] : {std::pair{"pattern", Purpose::pattern},
                                 {"weights", Purpose::weights},
                                 {"dropout", Purpose::dropout},
                                 {"regrow_cells", Purpose::regrow_cells},
                                 {"regrow_values", Purpose::regrow_values},
                                 {"shuffle", Purpose::shuffle},
                                 {"split", Purpose::split},
                                 {"data", Purpose::data},
                                 {"user", Purpose::user},
                                 {"worker", Purpose::worker},
                                 {"augment", Purpose::augment}})
        purposes[name] = static_cast<int>(purpose);
    m.attr("PURPOSES") = purposes;

    m.def("philox", &philox, "seed"_a, "purpose"_a, "layer"_a, "step"_a, "index"_a);
    m.def("shuffle", &shuffle_order, "n"_a, "seed"_a, "purpose"_a, "layer"_a, "step"_a);
}

}  // namespace trulysparse::bindings
