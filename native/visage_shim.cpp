// What libtorch has and tch does not bind. Each function is plain C to the Rust side: tensors go in
// as `at::Tensor*` (what `tch::Tensor::as_ptr` hands out) and a failure comes back as a message that
// the caller frees with `visage_free`; null means success.

#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/Version.h>
#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <torch/version.h>


namespace {

char *message(const char *text) {
  char *copy = static_cast<char *>(std::malloc(std::strlen(text) + 1));
  if (copy != nullptr) std::strcpy(copy, text);
  return copy;
}

// Exceptions must not cross into Rust.
template <class F>
char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return message(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return message(error.what());
  }
}

std::vector<at::Tensor> gather(at::Tensor *const *pointers, size_t count) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(count);
  for (size_t i = 0; i < count; ++i) tensors.push_back(*pointers[i]);
  return tensors;
}

} // namespace

extern "C" {

void visage_free(char *text) { std::free(text); }

const char *visage_torch_version() { return TORCH_VERSION; }

char *visage_cpu_capability() { return message(at::get_cpu_capability().c_str()); }

// One Adam (decoupled = 0) or AdamW (decoupled = 1) step over `count` parameters. `steps` are
// float32 scalars that already hold the number of this step.
char *visage_fused_adam(size_t count, at::Tensor *const *params, at::Tensor *const *grads,
                        at::Tensor *const *averages, at::Tensor *const *squares,
                        at::Tensor *const *steps, double lr, double beta1, double beta2,
                        double weight_decay, double eps, int decoupled) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto p = gather(params, count), g = gather(grads, count), m = gather(averages, count),
         v = gather(squares, count), s = gather(steps, count);
    if (decoupled != 0) {
      at::_fused_adamw_(p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps, false, false);
    } else {
      at::_fused_adam_(p, g, m, v, {}, s, lr, beta1, beta2, weight_decay, eps, false, false);
    }
  });
}

// One SGD step; `momenta` is empty (count_momenta = 0) without momentum.
char *visage_fused_sgd(size_t count, at::Tensor *const *params, at::Tensor *const *grads,
                       size_t count_momenta, at::Tensor *const *momenta, double lr,
                       double momentum, double weight_decay, int nesterov, int first_step) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto p = gather(params, count), g = gather(grads, count), b = gather(momenta, count_momenta);
    at::_fused_sgd_(p, g, b, weight_decay, momentum, lr, 0.0, nesterov != 0, false,
                    first_step != 0);
  });
}

} // extern "C"
