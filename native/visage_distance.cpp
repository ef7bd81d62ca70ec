// Distances of a row of float32 to many rows of bfloat16, for the search in galleries.

#include <cstddef>

#include "lanes.h"

namespace {

// Sixteen numbers at a time: one register of AVX-512, two of AVX2, four of SSE.
using Floats = float __attribute__((vector_size(64)));
using Words = uint32_t __attribute__((vector_size(64)));
using Halves = uint16_t __attribute__((vector_size(32)));
constexpr size_t WIDE = 16;

} // namespace

// out[i] = |query - rows[i]|^2 for `count` rows of `dim` bfloat16 values.
extern "C" EVERY_CPU void visage_squared_distances(
    const float *query, const uint16_t *rows, size_t count, size_t dim, float *out) {
  const size_t whole = dim / WIDE * WIDE;
  for (size_t i = 0; i < count; ++i) {
    const uint16_t *row = rows + i * dim;
    Floats sums[2] = {};
    for (size_t at = 0, turn = 0; at < whole; at += WIDE, turn ^= 1) {
      Halves bits;
      Floats value, other;
      std::memcpy(&bits, row + at, sizeof bits);
      std::memcpy(&value, query + at, sizeof value);
      Words words = __builtin_convertvector(bits, Words) << 16;
      std::memcpy(&other, &words, sizeof other);
      Floats off = value - other;
      sums[turn] += off * off;
    }
    Floats both = sums[0] + sums[1];
    float sum = 0;
    for (size_t lane = 0; lane < WIDE; ++lane) sum += both[lane];
    for (size_t at = whole; at < dim; ++at) {
      float off = query[at] - visage::to_float(row[at]);
      sum += off * off;
    }
    out[i] = sum;
  }
}
