// Eight floats at a time, with the vector extensions of GCC and Clang: one AVX register, or two of SSE or NEON.
#pragma once
#include <cmath>
#include <cstdint>

namespace sds3d {

constexpr int LANES = 8;
typedef float f4 __attribute__((vector_size(16)));
typedef float f8 __attribute__((vector_size(32)));
typedef int32_t i8 __attribute__((vector_size(32)));
typedef float f4_loose __attribute__((vector_size(16), aligned(4), may_alias));
typedef float f8_loose __attribute__((vector_size(32), aligned(4), may_alias));

static inline f8 load(const float* from) { return *reinterpret_cast<const f8_loose*>(from); }
static inline void store(float* to, f8 value) { *reinterpret_cast<f8_loose*>(to) = value; }
static inline void store(float* to, f4 value) { *reinterpret_cast<f4_loose*>(to) = value; }
static inline f8 same(float x) { return f8{x, x, x, x, x, x, x, x}; }
static inline f8 counting() { return f8{0, 1, 2, 3, 4, 5, 6, 7}; }
static inline f8 choose(i8 mask, f8 yes, f8 no) { return mask ? yes : no; }
static inline f8 keep(i8 mask, f8 value) { return (f8)((i8)value & mask); }
static inline f8 smaller(f8 a, f8 b) { return a < b ? a : b; }
static inline f8 larger(f8 a, f8 b) { return a > b ? a : b; }

static inline f8 root(f8 x) {
  f8 y;
  for (int lane = 0; lane < LANES; ++lane) y[lane] = std::sqrt(x[lane]);
  return y;
}

// 2^x for |x| < 100, relative error about 1e-7; any bits at all outside.
static inline f8 power_of_two(f8 x) {
  const f8 shift = same(12582912.0f);  // 1.5 * 2^23: adding it rounds x to an integer held in the low bits
  const f8 shifted = x + shift;
  const f8 f = x - (shifted - shift);  // in -0.5..0.5
  f8 y = same(1.3264726e-3f);          // least worst relative error, 9.2e-8
  y = y * f + 9.6715127e-3f;
  y = y * f + 5.55073375e-2f;
  y = y * f + 2.402224208e-1f;
  y = y * f + 6.931469776e-1f;
  y = y * f + 1.0f;
  return (f8)((i8)y + ((i8)shifted << 23));
}

// The sums over the lanes of four vectors.
static inline f4 sums(f8 a, f8 b, f8 c, f8 d) {
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
  const f4 a4 = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
  const f4 b4 = __builtin_shufflevector(b, b, 0, 1, 2, 3) + __builtin_shufflevector(b, b, 4, 5, 6, 7);
  const f4 c4 = __builtin_shufflevector(c, c, 0, 1, 2, 3) + __builtin_shufflevector(c, c, 4, 5, 6, 7);
  const f4 d4 = __builtin_shufflevector(d, d, 0, 1, 2, 3) + __builtin_shufflevector(d, d, 4, 5, 6, 7);
  const f4 ab = __builtin_shufflevector(a4, b4, 0, 4, 1, 5) + __builtin_shufflevector(a4, b4, 2, 6, 3, 7);
  const f4 cd = __builtin_shufflevector(c4, d4, 0, 4, 1, 5) + __builtin_shufflevector(c4, d4, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
#else
  f4 s = {0, 0, 0, 0};
  for (int lane = 0; lane < LANES; ++lane) s += f4{a[lane], b[lane], c[lane], d[lane]};
  return s;
#endif
}

}  // namespace sds3d
