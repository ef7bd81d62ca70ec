// Convolution, batch normalisation with its running statistics, and ReLU in one pass, for inference.
// The normalisation is folded into the weights, in float64, and these are stored in the layout of
// oneDNN's kernel:
//
//     W' = W gamma / sqrt(var + eps),   b' = (b - mean) gamma / sqrt(var + eps) + beta
//
// The address and version of each source tensor is kept: after a change by an optimiser or a loader
// the weights are folded again. (libtorch's batch normalisation does not bump the version of the
// statistics that it updates, but it does that of num_batches_tracked.)

#include <atomic>
#include <cmath>
#include <optional>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>

#include "guard.h"
#include "lanes.h"

namespace {

using at::Tensor;

// weight, bias, gamma, beta, mean, variance, number of batches; null where the layer has none.
constexpr size_t PARTS = 7;

struct Shape {
  int64_t stride;
  int64_t padding[2];
  double eps;
};

struct Fused {
  std::vector<std::pair<const void *, int64_t>> made_of;
  at::ScalarType kind = at::kFloat;
  Tensor weight, bias;
  bool packed = false;
};

// The dtype a convolution computes in: autocast's, where enabled.
at::ScalarType kind_of(const Tensor &x) {
  return at::autocast::is_autocast_enabled(at::kCPU) ? at::autocast::get_autocast_dtype(at::kCPU)
                                                     : x.scalar_type();
}

std::vector<std::pair<const void *, int64_t>> fingerprint(const Tensor *const *parts) {
  std::vector<std::pair<const void *, int64_t>> marks;
  for (size_t i = 0; i < PARTS; ++i)
    if (parts[i] != nullptr) marks.emplace_back(parts[i]->data_ptr(), parts[i]->_version());
  return marks;
}

std::optional<c10::OperatorHandle> find(const char *name) {
  return c10::Dispatcher::singleton().findSchema({name, ""});
}

Tensor call(const c10::OperatorHandle &op, torch::jit::Stack stack) {
  op.callBoxed(stack);
  return stack.back().toTensor();
}

Fused fold(const Tensor *const *parts, const Shape &shape, const Tensor &x) {
  auto wide = [](const Tensor *part) { return part == nullptr ? Tensor() : part->to(at::kDouble); };
  Tensor weight = wide(parts[0]), bias = wide(parts[1]), gamma = wide(parts[2]), beta = wide(parts[3]),
         mean = wide(parts[4]), variance = wide(parts[5]);
  if (!bias.defined()) bias = at::zeros({weight.size(0)}, weight.options());
  if (mean.defined()) {
    auto scale = at::rsqrt(variance + shape.eps);
    if (gamma.defined()) scale = scale * gamma;
    weight = weight * scale.view({-1, 1, 1, 1});
    bias = (bias - mean) * scale;
    if (beta.defined()) bias = bias + beta;
  }
  Fused fused;
  fused.kind = x.scalar_type();
  fused.bias = bias.to(fused.kind);
  fused.weight = weight.to(fused.kind).contiguous(at::MemoryFormat::ChannelsLast);
  static const auto reorder = find("mkldnn::_reorder_convolution_weight");
  static const auto pointwise = find("mkldnn::_convolution_pointwise");
  // oneDNN's ReLU turns NaN into zero, which would hide broken weights; `run` looks for NaN in the map.
  bool is_finite = at::isfinite(fused.weight).all().item<bool>() && at::isfinite(fused.bias).all().item<bool>();
  fused.packed = is_finite && reorder.has_value() && pointwise.has_value() && at::globalContext().hasMKLDNN();
  if (fused.packed) {
    using List = std::vector<int64_t>;
    // The layout is the best for maps of this size; oneDNN reorders it for others where necessary.
    fused.weight = call(*reorder, {fused.weight, List{shape.padding[0], shape.padding[1]},
                                   List{shape.stride, shape.stride}, List{1, 1}, int64_t{1},
                                   x.sizes().vec()});
  }
  fused.made_of = fingerprint(parts);
  return fused;
}

// Whether all channels of some pixel are zero.
template <class Number>
bool has_empty_pixel(const Number *y, int64_t pixels, int64_t channels) {
  std::atomic<bool> found{false};
  at::parallel_for(0, pixels, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const Number *at = y + pixel * channels;
      int64_t zeros = 0;
      while (zeros < channels && visage::to_float(at[zeros]) == 0.0f) ++zeros;
      if (zeros == channels) {
        found = true;
        return;
      }
    }
  });
  return found;
}

// Whether a ReLU that turns NaN into zero may have hidden NaN. With finite weights, NaN in a window
// reaches all channels of the pixel, so that the input is searched only behind an empty pixel.
bool hides_nan(const Tensor &x, const Tensor &y) {
  int64_t channels = y.size(1), pixels = y.numel() / std::max<int64_t>(channels, 1);
  bool suspect = !y.is_contiguous(at::MemoryFormat::ChannelsLast) ||
                 (y.scalar_type() == at::kFloat
                      ? has_empty_pixel(y.const_data_ptr<float>(), pixels, channels)
                      : has_empty_pixel(visage::halves(y), pixels, channels));
  return suspect && std::isnan(x.sum().item<float>());
}

Tensor run(const Fused &fused, const Shape &shape, const Tensor &x) {
  std::vector<int64_t> padding{shape.padding[0], shape.padding[1]}, stride{shape.stride, shape.stride};
  if (!fused.packed)
    return at::conv2d(x, fused.weight, fused.bias, stride, padding).relu_();
  static const auto pointwise = find("mkldnn::_convolution_pointwise");
  std::vector<int64_t> dilation{1, 1};
  auto convolve = [&](const char *after) {
    return call(*pointwise, {x, fused.weight, fused.bias, padding, stride, dilation, int64_t{1},
                             std::string(after), c10::List<std::optional<at::Scalar>>(), c10::IValue()});
  };
  Tensor y = convolve("relu");
  return hides_nan(x, y) ? convolve("none").relu_() : y;
}

} // namespace

extern "C" {

// Whether `visage_fused_run` supports the tensor: on the CPU, channels_last, float32 or bfloat16,
// under no_grad. The contiguous layout is left to libtorch's own operators.
int visage_fuses(const at::Tensor *x) noexcept {
  auto known = [](at::ScalarType kind) { return kind == at::kFloat || kind == at::kBFloat16; };
  return visage::asked([&] {
    return !at::GradMode::is_enabled() && x->device().is_cpu() && known(kind_of(*x)) && x->dim() == 4 &&
           x->is_contiguous(at::MemoryFormat::ChannelsLast) && !x->is_contiguous() && x->numel() > 0;
  });
}

// `state` is null before the first call, and is freed with `visage_fused_free`. `parts`: weight, bias,
// gamma, beta, mean, variance, number of batches, null where the layer has none.
char *visage_fused_run(void **state, const at::Tensor *x, const at::Tensor *const *parts, int64_t stride,
                       int64_t padding_high, int64_t padding_wide, double eps, at::Tensor **out) {
  return visage::guarded([&] {
    if (*state == nullptr) *state = new Fused();
    auto &fused = *static_cast<Fused *>(*state);
    Shape shape{stride, {padding_high, padding_wide}, eps};
    auto input = x->to(kind_of(*x));
    if (fused.kind != input.scalar_type() || fused.made_of != fingerprint(parts))
      fused = fold(parts, shape, input);
    *out = new at::Tensor(run(fused, shape, input));
  });
}

void visage_fused_free(void *state) noexcept { delete static_cast<Fused *>(state); }

} // extern "C"
