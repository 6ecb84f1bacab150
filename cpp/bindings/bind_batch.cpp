// SPDX-License-Identifier: BSD-3-Clause
#include "common.hpp"
#include "trulysparse/batch.hpp"

namespace trulysparse::bindings {

namespace {

// Calls f(Tag<T>) for the type of the samples, of which eight are allowed.
template <class F>
void with_sample_type(const py::array& array, const char* name, F&& f) {
    bool found = false;
    const auto attempt = [&](auto tag) {
        using T = typename decltype(tag)::type;
        if (found || !py::isinstance<py::array_t<T, 0>>(array)) return;
        found = true;
        f(tag);
    };
    attempt(Tag<float>{});
    attempt(Tag<std::uint8_t>{});
    attempt(Tag<double>{});
    attempt(Tag<std::int64_t>{});
    attempt(Tag<std::int32_t>{});
    attempt(Tag<std::int16_t>{});
    attempt(Tag<std::uint16_t>{});
    attempt(Tag<std::int8_t>{});
    if (!found)
        throw py::type_error(std::string(name) +
                             " must be float32, float64, int8, int16, int32, int64, uint8 or uint16, got " +
                             describe(array) + "; convert it once, before training, with .astype(np.float32)");
}

Array1<const std::int64_t> check_rows(py::handle object, Size samples) {
    const auto rows = array1<const std::int64_t>(object, "rows");
    for (Size b = 0; b < rows.size; ++b)
        if (rows.data[b] < 0 || rows.data[b] >= samples)
            throw InvalidArgument("rows must be sample numbers between 0 and " + std::to_string(samples - 1) +
                                  ", got " + std::to_string(rows.data[b]) + " at position " + std::to_string(b));
    return rows;
}

void dense(py::handle X, py::handle rows, py::handle out, py::handle shift, py::handle factor, int threads) {
    check_threads(threads);
    if (!py::isinstance<py::array>(X)) throw_not_array(X, "X", py::dtype::of<float>());
    const auto array = py::reinterpret_borrow<py::array>(X);
    if (array.ndim() != 2) throw_shape(X, "X", "(samples, features)");
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
        const Size size = sizeof(T);
        if (array.strides(0) % size != 0 || array.strides(1) % size != 0 ||
            reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0)
            throw InvalidArgument(
                "X must lie in memory in whole elements (a field of a structured array does not); "
                "copy it with np.array(X)");
        unlocked([&] {
            load_dense(static_cast<const T*>(array.data()), array.strides(0) / size, array.strides(1) / size,
                       chosen.data, batch, features, shifts, factors, batch_out.data,
                       static_cast<Index>(batch_out.cols), threads);
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
