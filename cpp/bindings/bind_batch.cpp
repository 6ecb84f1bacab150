// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/batch.hpp"

namespace trulysparse::bindings {

namespace {

void dense(py::handle X, py::handle rows, py::handle out, py::handle shift, py::handle factor, int threads) {
    check_threads(threads);
    const py::array array = sample_matrix(X, "X");
    const Index features = check_index(array.shape(1), "the number of features");
    const auto chosen = check_rows(rows, array.shape(0));
    const auto batch_out = activations<float>(out, "out", features);
    const Index batch = check_batch(chosen.size, batch_out.cols, "out");
    if (shift.is_none() != factor.is_none())
        throw InvalidArgument("shift and factor go together: give both or neither");
    const float* shifts = optional1<const float>(shift, "shift", features).data;
    const float* factors = optional1<const float>(factor, "factor", features).data;
    with_sample_type(array, "X", [&](auto tag) {
        using T = typename decltype(tag)::type;
        const auto strides = whole_strides<T>(array, "X");
        unlocked([&] {
            load_dense(static_cast<const T*>(array.data()), strides[0], strides[1], chosen.data, batch, features,
                       shifts, factors, batch_out.data, static_cast<Index>(batch_out.cols), threads);
        });
    });
}

void csr(py::handle data, py::handle indices, py::handle indptr, py::handle rows, std::int64_t n_features,
         py::handle out, py::handle factor, int threads) {
    check_threads(threads);
    const Index features = check_index(n_features, "n_features");
    const auto batch_out = activations<float>(out, "out", features);
    const float* factors = optional1<const float>(factor, "factor", features).data;
    if (!py::isinstance<py::array>(data)) throw_not_array(data, "data", py::dtype::of<float>());
    with_offset(indptr, "indptr", [&](auto width) {
        using I = typename decltype(width)::type;
        const auto offsets = array1<const I>(indptr, "indptr");
        if (offsets.size < 1) throw_shape(indptr, "indptr", "(samples + 1,)");
        const auto chosen = check_rows(rows, offsets.size - 1);
        const Index batch = check_batch(chosen.size, batch_out.cols, "out");
        with_sample_type(py::reinterpret_borrow<py::array>(data), "data", [&](auto tag) {
            using T = typename decltype(tag)::type;
            const auto values = array1<const T>(data, "data");
            const auto columns = array1<const I>(indices, "indices", values.size);
            unlocked([&] {
                load_csr(values.data, columns.data, values.size, offsets.data, chosen.data, batch, features, factors,
                         batch_out.data, static_cast<Index>(batch_out.cols), threads);
            });
        });
    });
}

void store(py::handle a, std::int64_t batch, py::handle out, int threads) {
    check_threads(threads);
    const auto source = activations<const float>(a, "a");
    const Index columns = check_batch(batch, source.cols, "a"), features = check_index(source.rows, "n");
    const auto target = array2<float>(out, "out", columns, features);
    unlocked([&] {
        store_transposed(source.data, features, static_cast<Index>(source.cols), columns, target.data, threads);
    });
}

}  // namespace

void bind_batch(py::module_& m) {
    m.def("load_dense", &dense, "X"_a, "rows"_a, "out"_a, "shift"_a, "factor"_a, "threads"_a);
    m.def("load_csr", &csr, "data"_a, "indices"_a, "indptr"_a, "rows"_a, "n_features"_a, "out"_a, "factor"_a,
          "threads"_a);
    m.def("store_transposed", &store, "a"_a, "batch"_a, "out"_a, "threads"_a);
}

}  // namespace trulysparse::bindings
