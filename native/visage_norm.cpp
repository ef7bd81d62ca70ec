// Batch normalisation by its running statistics and ReLU of feature maps whose channels are side by side
// (channels_last), in one pass forward and one backward. The map may be in pieces along its channels, as
// DenseNet's is, and then needs no concatenation. libtorch's own takes two passes, and one to concatenate.
//
//     y = max(0, v),  v = x scale + shift,  scale = weight / sqrt(var + eps),  shift = bias - mean scale
//     dx = g scale,  dbias = sum g,  dweight = sum g (x - mean) / sqrt(var + eps),  g = dy where v > 0

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
using torch::autograd::variable_list;
using visage::halves;
using visage::store;
using visage::to_float;

// Pixels whose sums are kept apart: the result does not depend on the number of threads, and few
// enough are added up in float32.
constexpr int64_t CHUNK = 256;

// Per channel, float32.
struct Factors {
  std::vector<float> scale, shift, mean, inverse;
};

std::vector<float> values(const Tensor &tensor) {
  auto flat = tensor.detach().to(at::kFloat).contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

Factors factors(const Tensor &weight, const Tensor &bias, const Tensor &mean, const Tensor &var, double eps) {
  Factors made{values(weight), values(bias), values(mean), values(var)};
  for (size_t i = 0; i < made.scale.size(); ++i) {
    made.inverse[i] = 1.0f / std::sqrt(made.inverse[i] + static_cast<float>(eps));
    made.scale[i] *= made.inverse[i];
    made.shift[i] -= made.mean[i] * made.scale[i];
  }
  return made;
}

// NaN stays NaN, as with PyTorch's ReLU.
template <class Number>
__attribute__((always_inline)) inline void
forward_row(const Number *__restrict x, Number *__restrict y, const float *__restrict scale,
            const float *__restrict shift, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) {
    float v = to_float(x[i]) * scale[i] + shift[i];
    store(y[i], v < 0.0f ? 0.0f : v);
  }
}

template <class Number>
__attribute__((always_inline)) inline void
backward_row(const Number *__restrict x, const Number *__restrict dy, Number *__restrict dx,
             const float *__restrict scale, const float *__restrict shift, const float *__restrict mean,
             float *__restrict sum, float *__restrict product, int64_t channels) {
  for (int64_t i = 0; i < channels; ++i) {
    float value = to_float(x[i]), slope = to_float(dy[i]);
    float g = value * scale[i] + shift[i] <= 0.0f ? 0.0f : slope;
    store(dx[i], g * scale[i]);
    sum[i] += g;
    product[i] += g * (value - mean[i]);
  }
}

// `pixels` of a piece with `own` channels, out of or into maps with `all`.
EVERY_CPU void forward_rows(const float *x, float *y, const float *scale, const float *shift,
                            int64_t pixels, int64_t own, int64_t all) {
  for (int64_t p = 0; p < pixels; ++p) forward_row(x + p * own, y + p * all, scale, shift, own);
}
EVERY_CPU void forward_rows(const uint16_t *x, uint16_t *y, const float *scale, const float *shift,
                            int64_t pixels, int64_t own, int64_t all) {
  for (int64_t p = 0; p < pixels; ++p) forward_row(x + p * own, y + p * all, scale, shift, own);
}
EVERY_CPU void backward_rows(const float *x, const float *dy, float *dx, const float *scale,
                             const float *shift, const float *mean, float *sum, float *product,
                             int64_t pixels, int64_t own, int64_t all) {
  for (int64_t p = 0; p < pixels; ++p)
    backward_row(x + p * own, dy + p * all, dx + p * own, scale, shift, mean, sum, product, own);
}
EVERY_CPU void backward_rows(const uint16_t *x, const uint16_t *dy, uint16_t *dx, const float *scale,
                             const float *shift, const float *mean, float *sum, float *product,
                             int64_t pixels, int64_t own, int64_t all) {
  for (int64_t p = 0; p < pixels; ++p)
    backward_row(x + p * own, dy + p * all, dx + p * own, scale, shift, mean, sum, product, own);
}

float *numbers(const Tensor &tensor, float) { return tensor.data_ptr<float>(); }
uint16_t *numbers(const Tensor &tensor, uint16_t) { return halves(tensor); }

int64_t pixels_of(const Tensor &map) { return map.numel() / map.size(1); }

// What to do with each chunk of pixels: their start and number, and the number of the chunk.
template <class Body> void for_chunks(int64_t pixels, Body body) {
  int64_t chunks = (pixels + CHUNK - 1) / CHUNK;
  at::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      int64_t start = chunk * CHUNK;
      body(start, std::min(CHUNK, pixels - start), chunk);
    }
  });
}

template <class Number> void forward(const variable_list &xs, const Tensor &y, const Factors &by) {
  Number *to = numbers(y, Number());
  int64_t all = y.size(1);
  for_chunks(pixels_of(y), [&](int64_t start, int64_t pixels, int64_t) {
    int64_t channel = 0;
    for (const auto &x : xs) {
      int64_t own = x.size(1);
      forward_rows(numbers(x, Number()) + start * own, to + start * all + channel, by.scale.data() + channel,
                   by.shift.data() + channel, pixels, own, all);
      channel += own;
    }
  });
}

// `dxs` become the gradients of the pieces; returns those of weight and bias.
template <class Number>
variable_list backward(const variable_list &xs, const Tensor &dy, const variable_list &dxs, const Factors &by) {
  const Number *from = numbers(dy, Number());
  int64_t all = dy.size(1), pixels = pixels_of(dy), chunks = (pixels + CHUNK - 1) / CHUNK;
  std::vector<float> sums(static_cast<size_t>(2 * all * chunks), 0.0f);
  for_chunks(pixels, [&](int64_t start, int64_t count, int64_t chunk) {
    int64_t channel = 0;
    for (size_t piece = 0; piece < xs.size(); ++piece) {
      int64_t own = xs[piece].size(1);
      float *sum = sums.data() + 2 * all * chunk + channel;
      backward_rows(numbers(xs[piece], Number()) + start * own, from + start * all + channel,
                    numbers(dxs[piece], Number()) + start * own, by.scale.data() + channel,
                    by.shift.data() + channel, by.mean.data() + channel, sum, sum + all, count, own, all);
      channel += own;
    }
  });
  auto grads = at::zeros({2, all}, at::kDouble);
  double *total = grads.data_ptr<double>();
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < 2 * all; ++i) total[i] += sums[2 * all * chunk + i];
  for (int64_t i = 0; i < all; ++i) total[all + i] *= by.inverse[i];
  grads = grads.to(at::kFloat);
  return {grads[1], grads[0]};
}

class NormRelu : public torch::autograd::Function<NormRelu> {
public:
  static Tensor forward(torch::autograd::AutogradContext *context, const at::TensorList &pieces,
                        const Tensor &weight, const Tensor &bias, const Tensor &mean, const Tensor &var,
                        double eps) {
    RECORD_FUNCTION("visage::norm_relu", std::vector<c10::IValue>());
    auto by = factors(weight, bias, mean, var, eps);
    variable_list xs = pieces.vec();
    auto shape = xs[0].sizes().vec();
    shape[1] = static_cast<int64_t>(by.scale.size());
    auto y = at::empty(shape, xs[0].options(), at::MemoryFormat::ChannelsLast);
    if (y.scalar_type() == at::kFloat) ::forward<float>(xs, y, by);
    else ::forward<uint16_t>(xs, y, by);
    variable_list saved = xs;
    for (const auto &one : {weight, bias, mean, var}) saved.push_back(one);
    context->save_for_backward(saved);
    context->saved_data["eps"] = eps;
    return y;
  }

  static variable_list backward(torch::autograd::AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this layer has no second derivative");
    RECORD_FUNCTION("visage::norm_relu_backward", std::vector<c10::IValue>());
    auto xs = context->get_saved_variables();
    auto rest = variable_list(xs.end() - 4, xs.end());
    xs.resize(xs.size() - 4);
    auto by = factors(rest[0], rest[1], rest[2], rest[3], context->saved_data["eps"].toDouble());
    variable_list dxs;
    for (const auto &x : xs) dxs.push_back(at::empty_like(x));
    auto dy = grads[0].to(xs[0].scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    auto of_parameters = dy.scalar_type() == at::kFloat ? ::backward<float>(xs, dy, dxs, by)
                                                        : ::backward<uint16_t>(xs, dy, dxs, by);
    dxs.insert(dxs.end(), of_parameters.begin(), of_parameters.end());
    // Mean, variance and eps have none.
    dxs.resize(dxs.size() + 3);
    return dxs;
  }
};

// Whether the pieces are of one map, its channels as many as the normalisation's.
bool fits(const variable_list &xs, int64_t channels) {
  int64_t sum = 0;
  for (const auto &x : xs) {
    if (!visage::has_lanes(x) || x.scalar_type() != xs[0].scalar_type()) return false;
    if (x.size(0) != xs[0].size(0) || x.size(2) != xs[0].size(2) || x.size(3) != xs[0].size(3)) return false;
    sum += x.size(1);
  }
  return !xs.empty() && sum == channels;
}

} // namespace

extern "C" {

// Null in `out` where the pieces are no maps that this is for.
char *visage_norm_relu(const at::Tensor *const *pieces, int64_t count, const at::Tensor *weight,
                       const at::Tensor *bias, const at::Tensor *mean, const at::Tensor *var, double eps,
                       at::Tensor **out) {
  return visage::guarded([&] {
    variable_list xs;
    for (int64_t i = 0; i < count; ++i) xs.push_back(*pieces[i]);
    bool matches = fits(xs, mean->numel());
    for (const auto *one : {weight, bias, mean, var})
      matches = matches && one->device().is_cpu() && one->numel() == mean->numel();
    if (matches) {
      at::TensorList list(xs);
      *out = new at::Tensor(NormRelu::apply(list, *weight, *bias, *mean, *var, eps));
    }
  });
}

} // extern "C"
