// Loops over the channels of a pixel, contiguous in memory (channels_last), for the compiler to
// vectorise.

#pragma once

#include <cstdint>
#include <cstring>

#include <ATen/ATen.h>

#include "guard.h"

// A copy of the function for each generation of vector instructions, chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
#define EVERY_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define EVERY_CPU
#endif

namespace visage {

// Whether the channels_last kernels support the tensor: float32 or bfloat16 on the CPU. Tensors that
// are contiguous in both layouts are excluded, so that networks are traced operator by operator.
inline bool has_lanes(const at::Tensor &x) {
  return asked([&] {
    return x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
           x.dim() == 4 && x.numel() > 0 && x.is_contiguous(at::MemoryFormat::ChannelsLast) &&
           !x.is_contiguous();
  });
}

inline float to_float(float value) { return value; }

// bfloat16 is the upper half of a float32.
inline float to_float(uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

inline void store(float &at, float value) { at = value; }

// Rounds to nearest even.
inline void store(uint16_t &at, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  at = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}

// The bits of a bfloat16 tensor.
inline uint16_t *halves(const at::Tensor &tensor) { return static_cast<uint16_t *>(tensor.data_ptr()); }

} // namespace visage
