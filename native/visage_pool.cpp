// Max pooling of channels_last maps. libtorch's kernel always stores the position of every maximum as
// a 64-bit number; this one stores the position in the window, 8 bits, and only for a backward pass.

#include "guard.h"

#include <algorithm>
#include <cstdint>
#include <limits>
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

struct Window {
  int64_t kernel, stride, padding;
};

struct Map {
  int64_t count, channels, high, wide;
  int64_t pixel(int64_t n, int64_t h, int64_t w) const { return ((n * high + h) * wide + w) * channels; }
};

Map map_of(const Tensor &x) { return {x.size(0), x.size(1), x.size(2), x.size(3)}; }

// As in PyTorch, a window must start inside the map or its left padding.
int64_t outputs(int64_t size, const Window &at, bool ceil) {
  int64_t room = size + 2 * at.padding - at.kernel;
  TORCH_CHECK(room >= 0 && at.stride > 0, "max pooling: a window of ", at.kernel, " does not fit into ",
              size, " with padding ", at.padding);
  int64_t count = room / at.stride + (ceil && room % at.stride != 0 ? 1 : 0) + 1;
  if (ceil && (count - 1) * at.stride >= size + at.padding) --count;
  return count;
}

// The larger of two, the first of equals; NaN takes precedence, as in PyTorch.
template <class Number>
inline void larger_one(const Number *x, float *best, int32_t *place, int32_t here, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) {
    float value = to_float(x[c]);
    bool take = (value > best[c]) | (value != value);
    best[c] = take ? value : best[c];
    place[c] = take ? here : place[c];
  }
}
EVERY_CPU void larger(const float *x, float *best, int32_t *place, int32_t here, int64_t channels) {
  larger_one(x, best, place, here, channels);
}
EVERY_CPU void larger(const uint16_t *x, float *best, int32_t *place, int32_t here, int64_t channels) {
  larger_one(x, best, place, here, channels);
}

template <class Number>
inline void narrow_one(const float *from, Number *to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) store(to[i], from[i]);
}
EVERY_CPU void narrow(const float *from, float *to, int64_t count) { narrow_one(from, to, count); }
EVERY_CPU void narrow(const float *from, uint16_t *to, int64_t count) { narrow_one(from, to, count); }

template <class Number>
inline void give_one(const Number *g, const uint8_t *place, float *dx, int32_t here, int64_t channels) {
  for (int64_t c = 0; c < channels; ++c) dx[c] += place[c] == here ? to_float(g[c]) : 0.0f;
}
EVERY_CPU void give(const float *g, const uint8_t *place, float *dx, int32_t here, int64_t channels) {
  give_one(g, place, dx, here, channels);
}
EVERY_CPU void give(const uint16_t *g, const uint8_t *place, float *dx, int32_t here, int64_t channels) {
  give_one(g, place, dx, here, channels);
}

// Calls `each(pixel of the map, number in the window)` for the pixels of a window inside the map.
template <class Each>
inline void places(const Map &in, const Window &at, int64_t n, int64_t oh, int64_t ow, Each &&each) {
  int64_t top = oh * at.stride - at.padding, left = ow * at.stride - at.padding;
  for (int64_t kh = std::max<int64_t>(0, -top); kh < std::min(at.kernel, in.high - top); ++kh)
    for (int64_t kw = std::max<int64_t>(0, -left); kw < std::min(at.kernel, in.wide - left); ++kw)
      each(in.pixel(n, top + kh, left + kw), static_cast<int32_t>(kh * at.kernel + kw));
}

template <class Number>
void forward(const Number *x, Number *y, uint8_t *kept, const Map &in, const Map &out, const Window &at) {
  at::parallel_for(0, out.count * out.high, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> best(in.channels);
    std::vector<int32_t> place(in.channels);
    for (int64_t row = begin; row < end; ++row) {
      int64_t n = row / out.high, oh = row % out.high;
      for (int64_t ow = 0; ow < out.wide; ++ow) {
        std::fill(best.begin(), best.end(), -std::numeric_limits<float>::infinity());
        bool is_first = true;
        places(in, at, n, oh, ow, [&](int64_t pixel, int32_t here) {
          if (is_first) std::fill(place.begin(), place.end(), here);
          is_first = false;
          larger(x + pixel, best.data(), place.data(), here, in.channels);
        });
        int64_t to = out.pixel(n, oh, ow);
        narrow(best.data(), y + to, in.channels);
        if (kept != nullptr)
          for (int64_t c = 0; c < in.channels; ++c) kept[to + c] = static_cast<uint8_t>(place[c]);
      }
    }
  });
}

template <class Number>
void backward(const Number *g, const uint8_t *kept, Number *dx, const Map &in, const Map &out,
              const Window &at) {
  at::parallel_for(0, in.count, 1, [&](int64_t begin, int64_t end) {
    int64_t picture = in.channels * in.high * in.wide;
    std::vector<float> sums(picture);
    for (int64_t n = begin; n < end; ++n) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (int64_t oh = 0; oh < out.high; ++oh)
        for (int64_t ow = 0; ow < out.wide; ++ow) {
          int64_t from = out.pixel(n, oh, ow);
          places(in, at, n, oh, ow, [&](int64_t pixel, int32_t here) {
            give(g + from, kept + from, sums.data() + (pixel - n * picture), here, in.channels);
          });
        }
      narrow(sums.data(), dx + n * picture, picture);
    }
  });
}

// The maxima; their positions are written to `kept`, if defined.
Tensor pool(const Tensor &x, const Window &at, bool ceil, bool keep, Tensor &kept) {
  RECORD_FUNCTION("visage::max_pool", std::vector<c10::IValue>());
  auto in = map_of(x);
  auto shape = {in.count, in.channels, outputs(in.high, at, ceil), outputs(in.wide, at, ceil)};
  auto y = at::empty(shape, x.options(), at::MemoryFormat::ChannelsLast);
  if (keep) kept = at::empty(shape, x.options().dtype(at::kByte), at::MemoryFormat::ChannelsLast);
  auto *to = keep ? kept.data_ptr<uint8_t>() : nullptr;
  if (x.scalar_type() == at::kFloat) forward(x.data_ptr<float>(), y.data_ptr<float>(), to, in, map_of(y), at);
  else forward(halves(x), halves(y), to, in, map_of(y), at);
  return y;
}

class MaxPool : public torch::autograd::Function<MaxPool> {
public:
  static Tensor forward(torch::autograd::AutogradContext *context, const Tensor &x, int64_t kernel,
                        int64_t stride, int64_t padding, bool ceil) {
    Tensor kept;
    auto y = pool(x, Window{kernel, stride, padding}, ceil, true, kept);
    context->save_for_backward({kept});
    context->saved_data["window"] = std::vector<int64_t>{kernel, stride, padding};
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["kind"] = static_cast<int64_t>(x.scalar_type());
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "this layer has no second derivative");
    RECORD_FUNCTION("visage::max_pool_backward", std::vector<c10::IValue>());
    auto kept = context->get_saved_variables()[0];
    auto window = context->saved_data["window"].toIntVector();
    auto shape = context->saved_data["shape"].toIntVector();
    auto kind = static_cast<at::ScalarType>(context->saved_data["kind"].toInt());
    auto g = grads[0].to(kind).contiguous(at::MemoryFormat::ChannelsLast);
    auto dx = at::empty(shape, g.options(), at::MemoryFormat::ChannelsLast);
    Window at{window[0], window[1], window[2]};
    auto *places = kept.data_ptr<uint8_t>();
    if (kind == at::kFloat)
      ::backward(g.data_ptr<float>(), places, dx.data_ptr<float>(), map_of(dx), map_of(g), at);
    else
      ::backward(halves(g), places, halves(dx), map_of(dx), map_of(g), at);
    return {dx, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

} // namespace

extern "C" {

// For tensors that `visage_has_lanes` supports, and windows of at most 255 positions.
char *visage_max_pool(const at::Tensor *x, int64_t kernel, int64_t stride, int64_t padding, int ceil,
                      at::Tensor **out) {
  return visage::guarded([&] {
    TORCH_CHECK(kernel > 0 && kernel < 16 && padding >= 0 && padding <= kernel / 2,
                "max pooling: a window of ", kernel, " with padding ", padding);
    Tensor none;
    bool differentiates = at::GradMode::is_enabled() && x->requires_grad();
    *out = new at::Tensor(differentiates
                              ? MaxPool::apply(*x, kernel, stride, padding, ceil != 0)
                              : pool(*x, Window{kernel, stride, padding}, ceil != 0, false, none));
  });
}

} // extern "C"
