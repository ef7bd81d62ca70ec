// Functions of libtorch that tch does not bind, with a C interface: tensors are passed as
// `at::Tensor*` (from `tch::Tensor::as_ptr`), and an error is returned as a message that the caller
// frees with `visage_free`; null means success.

#include <cstdlib>
#include <optional>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_amp_foreach_non_finite_check_and_unscale.h>
#include <ATen/ops/_amp_update_scale.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>

#include "guard.h"
#include "lanes.h"

namespace {

using visage::guarded;
using visage::message;

std::vector<at::Tensor> gather(at::Tensor *const *pointers, size_t count) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(count);
  for (size_t i = 0; i < count; ++i) tensors.push_back(*pointers[i]);
  return tensors;
}

// Bumps each tensor's version, which the fused optimisers do not.
void touch(const std::vector<at::Tensor> &tensors) {
  for (const auto &tensor : tensors) tensor.unsafeGetTensorImpl()->bump_version();
}

// The fused kernels iterate over raw memory: a parameter with gaps would be updated incorrectly.
void require_dense(const std::vector<at::Tensor> &params) {
  for (const auto &param : params)
    TORCH_CHECK(param.is_non_overlapping_and_dense(), "a parameter is a view with gaps (shape ",
                param.sizes(), ", strides ", param.strides(), "): make it contiguous");
}

std::optional<at::Tensor> optional(const at::Tensor *tensor) {
  return tensor == nullptr ? std::nullopt : std::optional<at::Tensor>(*tensor);
}

int autocast_state() {
  using namespace at::autocast;
  return (is_autocast_enabled(at::kCPU) ? 1 : 0) | (is_autocast_enabled(at::kCUDA) ? 2 : 0) |
         (get_autocast_dtype(at::kCPU) == at::kHalf ? 4 : 0) |
         (get_autocast_dtype(at::kCUDA) == at::kHalf ? 8 : 0);
}

void set_autocast(int state) {
  using namespace at::autocast;
  auto kind = [](bool half) { return half ? at::kHalf : at::kBFloat16; };
  set_autocast_enabled(at::kCPU, (state & 1) != 0);
  set_autocast_enabled(at::kCUDA, (state & 2) != 0);
  set_autocast_dtype(at::kCPU, kind((state & 4) != 0));
  set_autocast_dtype(at::kCUDA, kind((state & 8) != 0));
}

} // namespace

extern "C" {

void visage_free(char *text) noexcept { std::free(text); }

// The vector instructions of libtorch's CPU kernels, as text to be freed.
char *visage_cpu_capability(char **text) {
  return guarded([&] { *text = message(at::get_cpu_capability().c_str()); });
}

// Sets this thread's autocast state and returns the previous one in `before`: on for the CPU (bit 0) and
// for CUDA (bit 1), and the dtype of each (bits 2 and 3: 0 bfloat16, 1 float16). Each enter is paired
// with a leave, so that the 16-bit copies of the weights live as long as the outermost region.
char *visage_enter_autocast(int state, int *before) {
  return guarded([&] {
    *before = autocast_state();
    set_autocast(state);
    at::autocast::increment_nesting();
  });
}

char *visage_leave_autocast(int before) {
  return guarded([&] {
    set_autocast(before);
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  });
}

// Whether the channels_last kernels support the tensor.
int visage_has_lanes(const at::Tensor *tensor) noexcept { return visage::has_lanes(*tensor); }

// A tensor `[N, C, H, W]` in the channels_last memory format.
char *visage_channels_last(const at::Tensor *tensor, at::Tensor **out) {
  return guarded(
      [&] { *out = new at::Tensor(tensor->contiguous(at::MemoryFormat::ChannelsLast)); });
}

// The same in place, for parameters that are shared; 0 converts back to contiguous.
char *visage_set_channels_last(size_t count, at::Tensor *const *params, int channels_last) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto format =
        channels_last != 0 ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
    for (size_t i = 0; i < count; ++i)
      params[i]->set_data(params[i]->detach().contiguous(format));
  });
}

// Unscales gradients; `found` (float32, 1 element) is set to 1 if one of them is not finite.
char *visage_unscale(size_t count, at::Tensor *const *grads, at::Tensor *found,
                     const at::Tensor *inverse) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto all = gather(grads, count);
    at::_amp_foreach_non_finite_check_and_unscale_(all, *found, *inverse);
  });
}

// Updates the loss scale: times `backoff` if `found` is 1, times `growth` after `interval` consecutive
// calls with 0, which `good` (int32) counts. The host does not wait for the device.
char *visage_update_scale(at::Tensor *scale, at::Tensor *good, const at::Tensor *found,
                          double growth, double backoff, int64_t interval) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    at::_amp_update_scale_(*scale, *good, *found, growth, backoff, interval);
  });
}

// Sets gradients to undefined, as `optimizer.zero_grad(set_to_none=True)` does.
char *visage_clear_gradients(size_t count, at::Tensor *const *params) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i) params[i]->mutable_grad().reset();
  });
}

// One Adam (decoupled = 0) or AdamW (decoupled = 1) step over `count` parameters. `steps` are
// float32 scalars, the number of previous steps, incremented here. If `found` (float32, 0-d, may be
// null) is 1, nothing is changed.
char *visage_fused_adam(size_t count, at::Tensor *const *params, at::Tensor *const *grads,
                        at::Tensor *const *averages, at::Tensor *const *squares,
                        at::Tensor *const *steps, double lr, double beta1, double beta2,
                        double weight_decay, double eps, int decoupled, const at::Tensor *found) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto p = gather(params, count), g = gather(grads, count), m = gather(averages, count),
         v = gather(squares, count), s = gather(steps, count);
    require_dense(p);
    auto overflow = optional(found);
    if (overflow) {
      at::_foreach_add_(s, std::vector<at::Tensor>(count, 1 - *overflow));
    } else {
      at::_foreach_add_(s, 1);
    }
    if (decoupled != 0) {
      at::_fused_adamw_(p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps, false, false, {},
                        overflow);
    } else {
      at::_fused_adam_(p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps, false, false, {},
                       overflow);
    }
    touch(p);
  });
}

// One SGD step; `momenta` is empty (count_momenta = 0) without momentum. With buffers that start at
// zero the first step equals PyTorch's (dampening is 0) and needs no special case.
char *visage_fused_sgd(size_t count, at::Tensor *const *params, at::Tensor *const *grads,
                       size_t count_momenta, at::Tensor *const *momenta, double lr,
                       double momentum, double weight_decay, int nesterov, const at::Tensor *found) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto p = gather(params, count), g = gather(grads, count), b = gather(momenta, count_momenta);
    require_dense(p);
    at::_fused_sgd_(p, g, b, weight_decay, momentum, lr, 0.0, nesterov != 0, false, false, {},
                    optional(found));
    touch(p);
  });
}

} // extern "C"
