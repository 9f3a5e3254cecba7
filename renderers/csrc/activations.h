// Smooth functions of lanes of floats.
#pragma once
#include "lanes.h"

namespace sds3d {

constexpr float LOG2_E = 1.44269504f;

static inline Floats exponential(Floats x) {
  return power_of_two(larger(smaller(x * LOG2_E, same(99.0f)), same(-99.0f)));
}

static inline Floats absolute(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }

// log(1 + e^x) and its derivative 1 / (1 + e^-x); a NaN stays one in the first.
static inline Floats softplus(Floats x, Floats* sigmoid) {
  const Floats y = exponential(-absolute(x)), whole = 1.0f / (1.0f + y);
  const Floats s = y / (2.0f + y), ss = s * s;  // log(1 + y) = 2 artanh(s), s <= 1/3
  Floats series = same(1.0f / 13);
  series = series * ss + 1.0f / 11;
  series = series * ss + 1.0f / 9;
  series = series * ss + 1.0f / 7;
  series = series * ss + 1.0f / 5;
  series = series * ss + 1.0f / 3;
  series = series * ss + 1.0f;
  *sigmoid = choose(x < 0.0f, y * whole, whole);
  return choose(x < 0.0f, Floats{}, x) + 2.0f * s * series;
}

static inline Floats logistic(Floats x) {
  const Floats y = exponential(-absolute(x)), whole = 1.0f / (1.0f + y);
  return choose(x < 0.0f, y * whole, whole);
}

}  // namespace sds3d
