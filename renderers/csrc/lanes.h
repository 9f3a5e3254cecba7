// One register of floats at a time, with the vector extensions of GCC and Clang: eight with AVX, else four (SSE, NEON).
// A file that can do with sixteen defines SDS3D_SIXTEEN before this is included, and gets them with AVX-512.
#pragma once
#include <cmath>
#include <cstdint>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace sds3d {

#if defined(SDS3D_SIXTEEN) && defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourInts __attribute__((vector_size(16)));
typedef float FourAnywhere __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef float FloatsAnywhere __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));  // of masks: 0 or -1

static inline Four load_four(const float* from) { return *reinterpret_cast<const FourAnywhere*>(from); }
static inline Floats load(const float* from) { return *reinterpret_cast<const FloatsAnywhere*>(from); }
static inline void store(float* to, Floats value) { *reinterpret_cast<FloatsAnywhere*>(to) = value; }
static inline void store_four(float* to, Four value) { *reinterpret_cast<FourAnywhere*>(to) = value; }
static inline Floats same(float x) { return x - Floats{}; }
static inline Floats choose(Ints mask, Floats yes, Floats no) { return mask ? yes : no; }
static inline Floats keep(Ints mask, Floats value) { return (Floats)((Ints)value & mask); }
static inline Four keep_four(int32_t mask, Four value) { return (Four)((FourInts)value & mask); }
#if defined(SDS3D_SIXTEEN) && defined(__AVX512F__)
static inline Floats smaller(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
static inline Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
#else
static inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
static inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
#endif

// A bit for each lane that is above the bound.
static inline uint32_t above(Floats v, float bound) {
#if defined(SDS3D_SIXTEEN) && defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)v, (__m512)same(bound), _CMP_GT_OQ);
#elif defined(__AVX__)
  return uint32_t(_mm256_movemask_ps((__m256)(v > bound)));
#elif defined(__SSE2__)
  return uint32_t(_mm_movemask_ps((__m128)(v > bound)));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < LANES; ++lane) bits |= uint32_t(v[lane] > bound) << lane;
  return bits;
#endif
}

static inline Floats ceiling(Floats x) {
  Floats y;
  for (int lane = 0; lane < LANES; ++lane) y[lane] = std::ceil(x[lane]);
  return y;
}

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

#if defined(SDS3D_SIXTEEN) && defined(__AVX512F__)
// 2^(k/32).
alignas(64) constexpr float POWERS[32] = {
    1.0f, 1.0218972f, 1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f, 1.13878858f, 1.1637249f,
    1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f,
    1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.5759809f, 1.61049032f, 1.64575553f,
    1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f, 1.87416768f, 1.91520655f, 1.95714414f,
};
#endif

// 2^x for |x| < 100, relative error below 2e-7; any bits at all outside.
static inline Floats power_of_two(Floats x) {
#if defined(SDS3D_SIXTEEN) && defined(__AVX512F__)
  // From a table of 2^(k/32): what is left of x is so small that two terms do.
  const Floats shifted = x + same(393216.0f);  // 1.5 * 2^18: adding it leaves x in 32nds in the low bits
  const Floats rounded = shifted - same(393216.0f), f = x - rounded;
  const __m512 low = _mm512_load_ps(POWERS), high = _mm512_load_ps(POWERS + 16);
  const Floats y = (Floats)_mm512_permutex2var_ps(low, (__m512i)shifted, high);
  return (Floats)_mm512_scalef_ps((__m512)(y + y * (f * (f * 0.24022698f + 0.69315733f))), (__m512)rounded);
#else
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
#endif
}

// The logarithm to base 2 of x > 0, neither tiny nor infinite; any bits at all of others.
static inline Floats log_two(Floats x) {
  const Ints whole = ((Ints)x - 0x3f3504f3) >> 23;  // the bits of the root of 1/2
  const Floats part = (Floats)((Ints)x - (whole << 23)), s = (part - 1.0f) / (part + 1.0f), ss = s * s;
  Floats series = same(0.3205989f);                 // log(part) = 2 artanh(s), |s| < 0.172; times log2(e)
  series = series * ss + 0.41219859f;
  series = series * ss + 0.57707802f;
  series = series * ss + 0.96179669f;
  series = series * ss + 2.88539008f;
  return __builtin_convertvector(whole, Floats) + s * series;
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SDS3D_SHUFFLES
#endif
#endif

// The sums over the lanes of four vectors.
static inline Four sums(Floats a, Floats b, Floats c, Floats d) {
#if defined(SDS3D_SIXTEEN) && defined(__AVX512F__)
  const auto pairs = [](Floats v, Floats w) {
    return (Floats)_mm512_unpacklo_ps((__m512)v, (__m512)w) + (Floats)_mm512_unpackhi_ps((__m512)v, (__m512)w);
  };
  const __m512 ab = (__m512)pairs(a, b), cd = (__m512)pairs(c, d);
  const Floats four = (Floats)_mm512_shuffle_ps(ab, cd, 0x44) + (Floats)_mm512_shuffle_ps(ab, cd, 0xEE);
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)four), _mm512_extractf32x8_ps((__m512)four, 1));
  return (Four)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(SDS3D_SHUFFLES)
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

// Lane i of the k-th vector changes places with lane k of the i-th.
static inline void transpose(Four v[4]) {
#if defined(SDS3D_SHUFFLES)
  const Four a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5), b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
  const Four c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5), d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
#else
  Four old[4] = {v[0], v[1], v[2], v[3]};
  for (int k = 0; k < 4; ++k)
    for (int lane = 0; lane < 4; ++lane) v[k][lane] = old[lane][k];
#endif
}

#if !defined(SDS3D_SIXTEEN)
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

#if defined(__AVX__)
// The same in both halves.
static inline void transpose(Floats v[4]) {
#if defined(SDS3D_SHUFFLES)
  const Floats a = __builtin_shufflevector(v[0], v[1], 0, 8, 1, 9, 4, 12, 5, 13);
  const Floats b = __builtin_shufflevector(v[0], v[1], 2, 10, 3, 11, 6, 14, 7, 15);
  const Floats c = __builtin_shufflevector(v[2], v[3], 0, 8, 1, 9, 4, 12, 5, 13);
  const Floats d = __builtin_shufflevector(v[2], v[3], 2, 10, 3, 11, 6, 14, 7, 15);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
  v[1] = __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
  v[2] = __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
  v[3] = __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
#else
  Floats old[4] = {v[0], v[1], v[2], v[3]};
  for (int k = 0; k < 4; ++k)
    for (int lane = 0; lane < LANES; ++lane) v[k][lane] = old[lane % 4][lane / 4 * 4 + k];
#endif
}
#endif
#endif

}  // namespace sds3d
