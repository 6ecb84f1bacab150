// SPDX-License-Identifier: BSD-3-Clause
// The oracle: every numeric kernel written the slow, readable way, in double and one sample at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "trulysparse/activation.hpp"
#include "trulysparse/backward.hpp"
#include "trulysparse/loss.hpp"
#include "trulysparse/pattern.hpp"
#include "trulysparse/trained.hpp"
#include "trulysparse/update.hpp"

namespace trulysparse::ref {

// Matrices of doubles, (rows, columns) in row order; columns are samples.
struct Matrix {
    Index rows = 0, cols = 0;
    std::vector<double> values;
    Matrix(Index r, Index c) : rows(r), cols(c), values(static_cast<std::size_t>(r) * static_cast<std::size_t>(c)) {}
    double& operator()(Index r, Index c) {
        return values[static_cast<std::size_t>(r) * static_cast<std::size_t>(cols) + static_cast<std::size_t>(c)];
    }
    double operator()(Index r, Index c) const {
        return values[static_cast<std::size_t>(r) * static_cast<std::size_t>(cols) + static_cast<std::size_t>(c)];
    }
};

// The bfloat16 nearest to a, of two equally near ones the even; NaN keeps its upper half, made quiet.
Bf16 to_bf16(float a);
float to_float(Bf16 a);

// The first `batch` columns of (rows, ld) activations.
Matrix from_padded(const ConstRows& a, Index rows, Index batch, Index ld);

double activate(const Activation& activation, double z);
double derivative(const Activation& activation, double z);

// Is sample `column` (of this micro-batch) of `neuron` kept? Straight from rng.hpp's draw().
bool is_kept(const Dropout& dropout, Index neuron, Index column);

// z[j, b] = bias[j] + sum_i w(i, j) x[i, b].
template <class Offset>
Matrix weighted_sums(const PatternView<Offset>& p, const float* weights, const float* bias, const Matrix& x);

// y = dropout(f(z)).
Matrix activations(const Matrix& z, const Activation& activation, const Dropout& dropout);

// The same with trained parameters, and all that follows from dy = the gradient by y: one value a neuron.
double trained_activate(const TrainedParameters& parameters, Index neuron, double z);
Matrix trained_activations(const Matrix& z, const TrainedParameters& parameters, const Dropout& dropout);
struct TrainedGradient {
    Matrix dz;
    std::vector<double> row_sum, left_slope, left_threshold, right_threshold, right_slope;
};
TrainedGradient trained_gradient(const Matrix& z, const Matrix& dy, const TrainedParameters& parameters,
                                 const Dropout& dropout);

// dx[i, b] = sum_j w(i, j) dy[j, b].
template <class Offset>
Matrix input_gradient(const PatternView<Offset>& p, const float* weights, const Matrix& dy);

// dw[k] = sum_b x[i, b] dy[j, b].
template <class Offset>
std::vector<double> weight_gradient(const PatternView<Offset>& p, const Matrix& dy, const Matrix& x);

std::vector<float> average(const std::vector<std::vector<float>>& arrays);  // of equal lengths, at least one
void sgd_step(std::vector<double>& w, std::vector<double>& v, const std::vector<double>& g, const SgdParams& p);
void adam_step(std::vector<double>& w, std::vector<double>& m, std::vector<double>& v, const std::vector<double>& g,
               const AdamParams& p);
void adam_step_aged(std::vector<double>& w, std::vector<double>& m, std::vector<double>& v, std::vector<double>& age,
                    const std::vector<double>& g, const AdamParams& p);

Matrix softmax(const Matrix& z);
Matrix sigmoid(const Matrix& z);
LossSum softmax_cross_entropy(const Matrix& z, const std::vector<std::int32_t>& y, double scale, Matrix& delta);
LossSum binary_cross_entropy(const Matrix& z, const Matrix& t, double scale, Matrix& delta);
LossSum mean_squared_error(const Matrix& z, const Matrix& t, double scale, Matrix& delta);

}  // namespace trulysparse::ref
