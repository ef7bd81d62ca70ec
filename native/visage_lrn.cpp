// Local response normalisation across the channels of a pixel, contiguous in memory (channels_last):
// one pass over the map forward and one backward. Composed of libtorch's operators it takes ten, a
// quarter of nn4.small2's time.
//
//     y_i = x_i p_i,   p_i = t_i^-beta,   t_i = 1 + alpha sum_{|j-i| <= reach} x_j^2
//     dx_i = g_i p_i - 2 alpha beta x_i sum_{|j-i| <= reach} g_j x_j p_j / t_j

#include "guard.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lanes.h"

namespace {

using at::Tensor;
using visage::halves;
using visage::store;
using visage::to_float;

struct Lrn {
  int64_t reach;
  float alpha;
  float beta;
};

// The channels of one pixel, padded with zeros on both sides.
struct Row {
  explicit Row(const Lrn &lrn, int64_t channels)
      : values(static_cast<size_t>(channels + 2 * lrn.reach), 0.0f), first(values.data() + lrn.reach) {}
  std::vector<float> values;
  float *first;
};

EVERY_CPU void widen(const uint16_t *from, float *to, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) to[i] = to_float(from[i]);
}
EVERY_CPU void widen(const float *from, float *to, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) to[i] = from[i];
}

// t and p of a pixel, from its `squares`, padded with `reach` zeros on both sides.
EVERY_CPU void factors(const float *squares, float *t, float *p, int64_t channels, Lrn lrn) {
  for (int64_t i = 0; i < channels; ++i) t[i] = 0.0f;
  for (int64_t k = -lrn.reach; k <= lrn.reach; ++k)
    for (int64_t i = 0; i < channels; ++i) t[i] += squares[i + k];
  if (lrn.beta == 0.75f) {
    for (int64_t i = 0; i < channels; ++i) {
      t[i] = 1.0f + lrn.alpha * t[i];
      float root = 1.0f / std::sqrt(t[i]);
      p[i] = root * std::sqrt(root);
    }
  } else {
    for (int64_t i = 0; i < channels; ++i) {
      t[i] = 1.0f + lrn.alpha * t[i];
      p[i] = std::pow(t[i], -lrn.beta);
    }
  }
}

EVERY_CPU void square(const float *x, float *squares, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) squares[i] = x[i] * x[i];
}

EVERY_CPU void scale(const float *x, const float *p, float *y, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) store(y[i], x[i] * p[i]);
}
EVERY_CPU void scale(const float *x, const float *p, uint16_t *y, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) store(y[i], x[i] * p[i]);
}

// The gradient's term for the neighbouring channels: g x p / t.
EVERY_CPU void pull(const float *g, const float *x, const float *t, const float *p, float *q,
                    int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) q[i] = g[i] * x[i] * p[i] / t[i];
}

EVERY_CPU void gather(const float *g, const float *x, const float *p, const float *q, float *dx,
                      int64_t channels, Lrn lrn) {
  for (int64_t i = 0; i < channels; ++i) dx[i] = 0.0f;
  for (int64_t k = -lrn.reach; k <= lrn.reach; ++k)
    for (int64_t i = 0; i < channels; ++i) dx[i] += q[i + k];
  float both = 2.0f * lrn.alpha * lrn.beta;
  for (int64_t i = 0; i < channels; ++i) dx[i] = g[i] * p[i] - both * x[i] * dx[i];
}

EVERY_CPU void narrow(const float *from, float *to, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) store(to[i], from[i]);
}
EVERY_CPU void narrow(const float *from, uint16_t *to, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) store(to[i], from[i]);
}

template <class Number>
void forward(const Number *x, Number *y, int64_t pixels, int64_t channels, Lrn lrn) {
  at::parallel_for(0, pixels, 64, [&](int64_t begin, int64_t end) {
    Row squares(lrn, channels);
    std::vector<float> wide(channels), t(channels), p(channels);
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      widen(x + pixel * channels, wide.data(), channels);
      square(wide.data(), squares.first, channels);
      factors(squares.first, t.data(), p.data(), channels, lrn);
      scale(wide.data(), p.data(), y + pixel * channels, channels);
    }
  });
}

template <class Number>
void backward(const Number *x, const Number *g, Number *dx, int64_t pixels, int64_t channels,
              Lrn lrn) {
  at::parallel_for(0, pixels, 64, [&](int64_t begin, int64_t end) {
    Row squares(lrn, channels), pulls(lrn, channels);
    std::vector<float> wide(channels), slope(channels), t(channels), p(channels), out(channels);
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      widen(x + pixel * channels, wide.data(), channels);
      widen(g + pixel * channels, slope.data(), channels);
      square(wide.data(), squares.first, channels);
      factors(squares.first, t.data(), p.data(), channels, lrn);
      pull(slope.data(), wide.data(), t.data(), p.data(), pulls.first, channels);
      gather(slope.data(), wide.data(), p.data(), pulls.first, out.data(), channels, lrn);
      narrow(out.data(), dx + pixel * channels, channels);
    }
  });
}

Tensor run(const Tensor &x, const Tensor &grad, Lrn lrn) {
  RECORD_FUNCTION(grad.defined() ? "visage::lrn_backward" : "visage::lrn", std::vector<c10::IValue>());
  auto out = at::empty_like(x);
  int64_t channels = x.size(1), pixels = x.numel() / std::max<int64_t>(channels, 1);
  bool is_backward = grad.defined();
  if (x.scalar_type() == at::kFloat) {
    float *from = x.data_ptr<float>(), *to = out.data_ptr<float>();
    if (is_backward) backward(from, grad.data_ptr<float>(), to, pixels, channels, lrn);
    else forward(from, to, pixels, channels, lrn);
  } else {
    if (is_backward) backward(halves(x), halves(grad), halves(out), pixels, channels, lrn);
    else forward(halves(x), halves(out), pixels, channels, lrn);
  }
  return out;
}

class LocalResponseNorm : public torch::autograd::Function<LocalResponseNorm> {
public:
  static Tensor forward(torch::autograd::AutogradContext *context, const Tensor &x, int64_t reach,
                        double alpha, double beta) {
    context->save_for_backward({x});
    context->saved_data["reach"] = reach;
    context->saved_data["alpha"] = alpha;
    context->saved_data["beta"] = beta;
    return run(x, Tensor(), Lrn{reach, static_cast<float>(alpha), static_cast<float>(beta)});
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this layer has no second derivative");
    auto x = context->get_saved_variables()[0];
    Lrn lrn{context->saved_data["reach"].toInt(),
            static_cast<float>(context->saved_data["alpha"].toDouble()),
            static_cast<float>(context->saved_data["beta"].toDouble())};
    auto grad = grads[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    return {run(x, grad, lrn), Tensor(), Tensor(), Tensor()};
  }
};

} // namespace

extern "C" {

// For tensors that `visage_has_lanes` supports.
char *visage_lrn(const at::Tensor *x, int64_t reach, double alpha, double beta, at::Tensor **out) {
  return visage::guarded([&] { *out = new at::Tensor(LocalResponseNorm::apply(*x, reach, alpha, beta)); });
}

} // extern "C"
