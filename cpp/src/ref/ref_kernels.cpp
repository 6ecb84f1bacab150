// SPDX-License-Identifier: BSD-3-Clause
#include "ref/ref_kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace trulysparse::ref {

Bf16 to_bf16(float a) {
    if (std::isfinite(a)) {
        int exponent;  // |a| = m * 2^exponent, 1/2 <= m < 1
        std::frexp(a, &exponent);
        const double unit = std::ldexp(1.0, std::max(exponent - 8, -133));  // of 8 significant bits, or of a denormal
        a = static_cast<float>(std::nearbyint(a / unit) * unit);            // too large becomes infinity
    }
    std::uint32_t word;
    std::memcpy(&word, &a, sizeof word);
    return {static_cast<std::uint16_t>((std::isnan(a) ? word | 0x00400000u : word) >> 16)};
}

float to_float(Bf16 a) {
    const std::uint32_t word = static_cast<std::uint32_t>(a.bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}

Matrix from_padded(const ConstRows& a, Index rows, Index batch, Index ld) {
    Matrix m(rows, batch);
    for (Index r = 0; r < rows; ++r)
        for (Index b = 0; b < batch; ++b) {
            const std::size_t at =
                static_cast<std::size_t>(r) * static_cast<std::size_t>(ld) + static_cast<std::size_t>(b);
            m(r, b) = a.bf16 ? to_float(static_cast<const Bf16*>(a.data)[at]) : static_cast<const float*>(a.data)[at];
        }
    return m;
}

double activate(const Activation& activation, double z) {
    switch (activation.kind) {
        case ActivationKind::rectifier:
            return z > 0 ? z : activation.slope * z;
        case ActivationKind::sigmoid:
            return 1.0 / (1.0 + std::exp(-z));
        case ActivationKind::tanh:
            return std::tanh(z);
        default:
            return z;
    }
}

double derivative(const Activation& activation, double z) {
    const double a = activate(activation, z);
    switch (activation.kind) {
        case ActivationKind::rectifier:
            return z < 0 ? activation.slope : 1.0;
        case ActivationKind::sigmoid:
            return a * (1.0 - a);
        case ActivationKind::tanh:
            return 1.0 - a * a;
        default:
            return 1.0;
    }
}

bool is_kept(const Dropout& dropout, Index neuron, Index column) {
    if (dropout.threshold == 0) return true;
    const std::uint32_t sample = static_cast<std::uint32_t>(dropout.column_offset + column);
    const Block block = draw(dropout.stream, static_cast<std::uint64_t>(neuron) << 32 | sample / 8);
    const std::uint32_t word = block[sample % 8 / 2];
    const std::uint32_t drawn = sample % 2 == 0 ? word & 0xffffu : word >> 16;
    return drawn >= dropout.threshold;
}

template <class Offset>
Matrix weighted_sums(const PatternView<Offset>& p, const float* weights, const float* bias, const Matrix& x) {
    Matrix z(p.cols, x.cols);
    for (Index j = 0; j < p.cols; ++j)
        for (Index b = 0; b < x.cols; ++b) z(j, b) = bias[j];
    for (Index i = 0; i < p.rows; ++i)
        for (Offset k = p.row_ptr[i]; k < p.row_ptr[i + 1]; ++k)
            for (Index b = 0; b < x.cols; ++b) z(p.col_idx[k], b) += weights[k] * x(i, b);
    return z;
}

Matrix activations(const Matrix& z, const Activation& activation, const Dropout& dropout) {
    Matrix y(z.rows, z.cols);
    for (Index j = 0; j < z.rows; ++j)
        for (Index b = 0; b < z.cols; ++b)
            y(j, b) = is_kept(dropout, j, b) ? activate(activation, z(j, b)) * dropout.scale() : 0.0;
    return y;
}

namespace {

struct Thresholds {
    double left, right;
};

Thresholds thresholds(const TrainedParameters& p, Index neuron) {
    if (!p.left_threshold) return {0.0, HUGE_VAL};
    const double left = p.left_threshold[neuron];
    return {left, static_cast<float>(left + std::fabs(p.right_threshold[neuron]))};  // as the kernels round it
}

}  // namespace

double trained_activate(const TrainedParameters& p, Index neuron, double z) {
    const auto [left, right] = thresholds(p, neuron);
    if (z < left) return left + p.left_slope[p.shared ? 0 : neuron] * (z - left);
    return z > right ? right + p.right_slope[neuron] * (z - right) : z;
}

Matrix trained_activations(const Matrix& z, const TrainedParameters& parameters, const Dropout& dropout) {
    Matrix y(z.rows, z.cols);
    for (Index j = 0; j < z.rows; ++j)
        for (Index b = 0; b < z.cols; ++b)
            y(j, b) = is_kept(dropout, j, b) ? trained_activate(parameters, j, z(j, b)) * dropout.scale() : 0.0;
    return y;
}

TrainedGradient trained_gradient(const Matrix& z, const Matrix& dy, const TrainedParameters& p,
                                 const Dropout& dropout) {
    const std::vector<double> none(static_cast<std::size_t>(z.rows));
    TrainedGradient g{Matrix(z.rows, z.cols), none, none, none, none, none};
    for (Index j = 0; j < z.rows; ++j)
        for (Index b = 0; b < z.cols; ++b) {
            const std::size_t n = static_cast<std::size_t>(j);
            const auto [left, right] = thresholds(p, j);
            const double a = z(j, b), d = is_kept(dropout, j, b) ? dy(j, b) * dropout.scale() : 0.0;
            double slope = 1.0;
            if (a < left) {
                slope = p.left_slope[p.shared ? 0 : j];
                g.left_slope[n] += d * (a - left);
                g.left_threshold[n] += d * (1.0 - slope);
            } else if (a > right) {
                slope = p.right_slope[j];
                g.right_slope[n] += d * (a - right);
                g.left_threshold[n] += d * (1.0 - slope);
                g.right_threshold[n] += d * (1.0 - slope) * (p.right_threshold[j] < 0.0f ? -1.0 : 1.0);
            }
            g.dz(j, b) = slope * d;
            g.row_sum[n] += slope * d;
        }
    return g;
}

template <class Offset>
Matrix input_gradient(const PatternView<Offset>& p, const float* weights, const Matrix& dy) {
    Matrix dx(p.rows, dy.cols);
    for (Index i = 0; i < p.rows; ++i)
        for (Offset k = p.row_ptr[i]; k < p.row_ptr[i + 1]; ++k)
            for (Index b = 0; b < dy.cols; ++b) dx(i, b) += weights[k] * dy(p.col_idx[k], b);
    return dx;
}

template <class Offset>
std::vector<double> weight_gradient(const PatternView<Offset>& p, const Matrix& dy, const Matrix& x) {
    std::vector<double> dw(static_cast<std::size_t>(p.nnz()));
    for (Index i = 0; i < p.rows; ++i)
        for (Offset k = p.row_ptr[i]; k < p.row_ptr[i + 1]; ++k)
            for (Index b = 0; b < dy.cols; ++b) dw[static_cast<std::size_t>(k)] += x(i, b) * dy(p.col_idx[k], b);
    return dw;
}

std::vector<float> average(const std::vector<std::vector<float>>& arrays) {
    std::vector<float> mean;
    for (std::size_t i = 0; i < arrays[0].size(); ++i) {
        double sum = 0.0;
        for (const auto& array : arrays) sum += array[i];
        mean.push_back(static_cast<float>(sum / static_cast<double>(arrays.size())));
    }
    return mean;
}

void sgd_step(std::vector<double>& w, std::vector<double>& v, const std::vector<double>& g, const SgdParams& p) {
    for (std::size_t k = 0; k < w.size(); ++k) {
        double gradient = g[k];
        if (p.first) gradient += (p.l2 + (p.form == Decay::l2 ? p.decay : 0.0)) * w[k];
        if (p.first) v[k] *= p.momentum;
        v[k] -= p.lr * gradient;
        if (!p.last) continue;
        const double step = p.nesterov ? p.momentum * v[k] - p.lr * gradient : v[k];
        const double shrink = p.form == Decay::paper ? p.decay * w[k] : 0.0;
        w[k] += step - shrink;
    }
}

void adam_step(std::vector<double>& w, std::vector<double>& m, std::vector<double>& v, const std::vector<double>& g,
               const AdamParams& p) {
    for (std::size_t k = 0; k < w.size(); ++k) {
        const double gradient = g[k] + (p.l2 + (p.decoupled ? 0.0 : p.decay)) * w[k];
        m[k] = p.beta1 * m[k] + (1.0 - p.beta1) * gradient;
        v[k] = p.beta2 * v[k] + (1.0 - p.beta2) * gradient * gradient;
        const double shrink = p.decoupled ? p.lr * p.decay * w[k] : 0.0;
        w[k] -= p.lr * (m[k] / p.correction1) / (std::sqrt(v[k] / p.correction2) + p.eps) + shrink;
    }
}

void adam_step_aged(std::vector<double>& w, std::vector<double>& m, std::vector<double>& v, std::vector<double>& age,
                    const std::vector<double>& g, const AdamParams& p) {
    for (std::size_t k = 0; k < w.size(); ++k) {
        age[k] += 1.0;
        AdamParams own = p;
        own.correction1 = static_cast<float>(1.0 - std::pow(static_cast<double>(p.beta1), age[k]));
        own.correction2 = static_cast<float>(1.0 - std::pow(static_cast<double>(p.beta2), age[k]));
        std::vector<double> one_w{w[k]}, one_m{m[k]}, one_v{v[k]};
        adam_step(one_w, one_m, one_v, {g[k]}, own);
        w[k] = one_w[0];
        m[k] = one_m[0];
        v[k] = one_v[0];
    }
}

Matrix softmax(const Matrix& z) {
    Matrix proba(z.rows, z.cols);
    for (Index b = 0; b < z.cols; ++b) {
        double largest = z(0, b), sum = 0.0;
        for (Index i = 1; i < z.rows; ++i) largest = std::fmax(largest, z(i, b));
        for (Index i = 0; i < z.rows; ++i) sum += proba(i, b) = std::exp(z(i, b) - largest);
        for (Index i = 0; i < z.rows; ++i) proba(i, b) /= sum;
    }
    return proba;
}

Matrix sigmoid(const Matrix& z) {
    Matrix proba(z.rows, z.cols);
    for (Index i = 0; i < z.rows; ++i)
        for (Index b = 0; b < z.cols; ++b) proba(i, b) = activate({ActivationKind::sigmoid, 0.0f}, z(i, b));
    return proba;
}

LossSum softmax_cross_entropy(const Matrix& z, const std::vector<std::int32_t>& y, double scale, Matrix& delta) {
    LossSum sum;
    delta = softmax(z);
    for (Index b = 0; b < z.cols; ++b) {
        const Index label = y[static_cast<std::size_t>(b)];
        Index best = 0;
        double total = 0.0;
        for (Index i = 1; i < z.rows; ++i)
            if (z(i, b) > z(best, b)) best = i;
        for (Index i = 0; i < z.rows; ++i) total += std::exp(z(i, b) - z(best, b));
        sum.loss += std::log(total) + (z(best, b) - z(label, b));
        sum.correct += best == label;
        for (Index i = 0; i < z.rows; ++i) delta(i, b) = (delta(i, b) - (i == label)) * scale;
    }
    return sum;
}

LossSum binary_cross_entropy(const Matrix& z, const Matrix& t, double scale, Matrix& delta) {
    LossSum sum;
    delta = sigmoid(z);
    for (Index b = 0; b < z.cols; ++b) {
        bool correct = true;
        for (Index i = 0; i < z.rows; ++i) {
            const double a = z(i, b);
            sum.loss += (std::fmax(a, 0.0) + std::log1p(std::exp(-std::fabs(a))) - t(i, b) * a) / z.rows;
            correct = correct && (a > 0.0) == (t(i, b) > 0.5);
            delta(i, b) = (delta(i, b) - t(i, b)) * scale / z.rows;
        }
        sum.correct += correct;
    }
    return sum;
}

LossSum mean_squared_error(const Matrix& z, const Matrix& t, double scale, Matrix& delta) {
    LossSum sum;
    delta = Matrix(z.rows, z.cols);
    for (Index b = 0; b < z.cols; ++b)
        for (Index i = 0; i < z.rows; ++i) {
            const double difference = z(i, b) - t(i, b);
            sum.loss += difference * difference / z.rows;
            delta(i, b) = 2.0 * difference * scale / z.rows;
        }
    return sum;
}

template Matrix weighted_sums(const PatternView<std::int8_t>&, const float*, const float*, const Matrix&);
template Matrix weighted_sums(const PatternView<std::int16_t>&, const float*, const float*, const Matrix&);
template Matrix weighted_sums(const PatternView<std::int32_t>&, const float*, const float*, const Matrix&);
template Matrix weighted_sums(const PatternView<std::int64_t>&, const float*, const float*, const Matrix&);
template Matrix input_gradient(const PatternView<std::int8_t>&, const float*, const Matrix&);
template Matrix input_gradient(const PatternView<std::int16_t>&, const float*, const Matrix&);
template Matrix input_gradient(const PatternView<std::int32_t>&, const float*, const Matrix&);
template Matrix input_gradient(const PatternView<std::int64_t>&, const float*, const Matrix&);
template std::vector<double> weight_gradient(const PatternView<std::int8_t>&, const Matrix&, const Matrix&);
template std::vector<double> weight_gradient(const PatternView<std::int16_t>&, const Matrix&, const Matrix&);
template std::vector<double> weight_gradient(const PatternView<std::int32_t>&, const Matrix&, const Matrix&);
template std::vector<double> weight_gradient(const PatternView<std::int64_t>&, const Matrix&, const Matrix&);

}  // namespace trulysparse::ref
