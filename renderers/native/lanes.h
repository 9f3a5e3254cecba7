// One register of floats at a time, with the vector extensions of GCC and Clang: eight with AVX, else four (SSE, NEON).
#pragma once
#include <cmath>
#include <cstdint>

namespace sds3d {

#if defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Four __attribute__((vector_size(16)));
typedef float FourAnywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef float FloatsAnywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));  // of masks: 0 or -1

static inline Floats load(const float* from) { return *reinterpret_cast<const FloatsAnywhere*>(from); }
static inline void store(float* to, Floats value) { *reinterpret_cast<FloatsAnywhere*>(to) = value; }
static inline void store_four(float* to, Four value) { *reinterpret_cast<FourAnywhere*>(to) = value; }
static inline Floats same(float x) { return x - Floats{}; }
static inline Floats choose(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }
static inline Floats keep(Ints mask, Floats value) { return (Floats)((Ints)value & mask); }
static inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
static inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

static inline Floats counting() {
  Floats lanes;
  for (int lane = 0; lane < LANES; ++lane) lanes[lane] = float(lane);
  return lanes;
}

static inline Floats root(Floats x) {
  Floats y;
  for (int lane = 0; lane < LANES; ++lane) y[lane] = std::sqrt(x[lane]);
  return y;
}

// 2^x for |x| < 100, relative error below 2e-7; any bits at all outside.
static inline Floats power_of_two(Floats x) {
  const Floats shift = same(12582912.0f);  // 1.5 * 2^23: adding it rounds x to an integer held in the low bits
  const Floats shifted = x + shift;
  const Floats f = x - (shifted - shift);  // in -0.5..0.5
  Floats y = same(1.3264726e-3f);          // the polynomial of least worst relative error, 9.2e-8
  y = y * f + 9.6715127e-3f;
  y = y * f + 5.55073375e-2f;
  y = y * f + 2.402224208e-1f;
  y = y * f + 6.931469776e-1f;
  y = y * f + 1.0f;
  return (Floats)((Ints)y + ((Ints)shifted << 23));
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SDS3D_SHUFFLES
#endif
#endif

// The sums over the lanes of four vectors.
static inline Four sums(Floats a, Floats b, Floats c, Floats d) {
#if defined(SDS3D_SHUFFLES)
#if defined(__AVX__)
  const auto halves = [](Floats v) {
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  };
  const Four a4 = halves(a), b4 = halves(b), c4 = halves(c), d4 = halves(d);
#else
  const Four a4 = a, b4 = b, c4 = c, d4 = d;
#endif
  const Four ab = __builtin_shufflevector(a4, b4, 0, 4, 1, 5) + __builtin_shufflevector(a4, b4, 2, 6, 3, 7);
  const Four cd = __builtin_shufflevector(c4, d4, 0, 4, 1, 5) + __builtin_shufflevector(c4, d4, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
#else
  Four s = {0, 0, 0, 0};
  for (int lane = 0; lane < LANES; ++lane) s += Four{a[lane], b[lane], c[lane], d[lane]};
  return s;
#endif
}

// The numbers of a, and with eight lanes those of b behind them.
static inline Floats joined(Four a, [[maybe_unused]] Four b) {
#if !defined(__AVX__)
  return a;
#elif defined(SDS3D_SHUFFLES)
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
#else
  return Floats{a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]};
#endif
}

// Lane i of the k-th vector changes places with lane k of the i-th; with eight lanes, in both halves.
static inline void transpose(Floats v[4]) {
#if defined(SDS3D_SHUFFLES)
#if defined(__AVX__)
  const Floats a = __builtin_shufflevector(v[0], v[1], 0, 8, 1, 9, 4, 12, 5, 13);
  const Floats b = __builtin_shufflevector(v[0], v[1], 2, 10, 3, 11, 6, 14, 7, 15);
  const Floats c = __builtin_shufflevector(v[2], v[3], 0, 8, 1, 9, 4, 12, 5, 13);
  const Floats d = __builtin_shufflevector(v[2], v[3], 2, 10, 3, 11, 6, 14, 7, 15);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
  v[1] = __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
  v[2] = __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
  v[3] = __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
#else
  const Floats a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
  const Floats c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5), d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
#endif
#else
  Floats old[4] = {v[0], v[1], v[2], v[3]};
  for (int k = 0; k < 4; ++k)
    for (int lane = 0; lane < LANES; ++lane) v[k][lane] = old[lane % 4][lane / 4 * 4 + k];
#endif
}

}  // namespace sds3d
