// From samples along a ray to what is seen of it, LANES samples at a time, and the way back; both nearest first.
//
// With tau_i = density_i step and T_i = exp(-sum over j < i of tau_j), sample i has weight w_i = T_i - T_{i+1}
// (Max 1995; Mildenhall et al. 2020, equation 3). Samples with T_i <= EXHAUSTED are left out. On the way back, with
// q_i the derivative of the loss by w_i, dL/dtau_i = T_{i+1} q_i - sum over j > i of w_j q_j, and that sum is known
// once the sum over all j is: the layers are linear in w but for the spread, which is of degree two.
#pragma once
#include "activations.h"
#include "volume.h"

namespace sds3d {

// The lanes moved up by one, two or four places, with `fill` in those that become free.
template <int PLACES>
static inline Floats moved_up(Floats v, Floats fill) {
#if defined(SDS3D_SHUFFLES)
#if defined(__AVX__)
  constexpr int k = 8 - PLACES;  // the lanes of fill come before those of v
  return __builtin_shufflevector(fill, v, k, k + 1, k + 2, k + 3, k + 4, k + 5, k + 6, k + 7);
#else
  constexpr int k = 4 - (PLACES < 4 ? PLACES : 4);
  return __builtin_shufflevector(fill, v, k, k + 1, k + 2, k + 3);
#endif
#else
  Floats moved = fill;
  for (int lane = PLACES; lane < LANES; ++lane) moved[lane] = v[lane - PLACES];
  return moved;
#endif
}

// The product of each lane and those before it.
static inline Floats products(Floats v) {
  const Floats one = same(1.0f);
  v *= moved_up<1>(v, one);
  v *= moved_up<2>(v, one);
  return LANES > 4 ? v * moved_up<4>(v, one) : v;
}

// The sum of each lane and those before it.
static inline Floats running(Floats v) {
  v += moved_up<1>(v, Floats{});
  v += moved_up<2>(v, Floats{});
  return LANES > 4 ? v + moved_up<4>(v, Floats{}) : v;
}

static inline Floats first(int count) { return choose(counting() < float(count), same(1.0f), Floats{}); }

// LANES samples of one ray, or their gradients. Lanes beyond the last sample have density 0.
struct Samples {
  Floats density, albedo[3], normal[3];
};

class Composite {
 public:
  Composite(const Volume& v, const Ray& r) : volume(v), ray(r) {}

  // Whether samples farther back are seen.
  bool open() const { return through > EXHAUSTED; }

  // Takes the next samples; false once the ray lets nothing more through.
  bool take(const Samples& s, Floats t) {
    const Weights w = weigh(s.density);
    const Lit lit = light(s, t);
    for (int c = 0; c < 3; ++c) wide[COLOUR + c] += w.weight * (ray.shade == TEXTURELESS ? lit.share : s.albedo[c] * lit.share);
    wide[ALPHA] += w.weight;
    wide[REACH] += w.weight * t;
    if (volume.normals) {
      for (int d = 0; d < 3; ++d) wide[NORMAL + d] += w.weight * s.normal[d];
      wide[AWAY] += w.weight * lit.away * lit.away;
    }
    if (volume.spread) {
      const Spread p = spread(w.weight, t);
      wide[SPREAD] += w.weight * (2.0f * (t * p.weight - p.reach) + w.weight * (volume.step / 3));
    }
    return open();
  }

  void finish(float* layers) {
    store_four(layers, sums(wide[0], wide[1], wide[2], wide[3]));
    store_four(layers + 4, sums(wide[4], wide[5], wide[6], wide[7]));
    const Four last = sums(wide[8], wide[9], wide[9], wide[9]);
    layers[8] = last[0];
    layers[9] = last[1];
  }

  // The way back: first the layers and their gradients, then the samples in the same order.
  void begin(const float* layers, const float* d_layers) {
    rest = 0;
    for (int layer = 0; layer < LAYERS; ++layer) {
      total[layer] = layers[layer];
      pull[layer] = d_layers[layer];
      rest += layers[layer] * d_layers[layer] * (layer == SPREAD ? 2.0f : 1.0f);
    }
  }

  // Writes the gradients of the samples.
  void take_back(const Samples& s, Floats t, Samples* d) {
    const Weights w = weigh(s.density);
    const Lit lit = light(s, t);
    Floats q = pull[ALPHA] + pull[REACH] * t, d_share = {};
    for (int c = 0; c < 3; ++c) {
      const Floats d_colour = w.weight * pull[COLOUR + c];
      if (ray.shade == TEXTURELESS) {
        q += pull[COLOUR + c] * lit.share;
        d_share += d_colour;
        d->albedo[c] = Floats{};
      } else {
        q += pull[COLOUR + c] * lit.share * s.albedo[c];
        d_share += d_colour * s.albedo[c];
        d->albedo[c] = d_colour * lit.share;
      }
    }
    if (volume.normals) {
      q += pull[AWAY] * lit.away * lit.away;
      const Floats towards = choose(lit.facing > 0.0f, d_share * (1 - volume.ambient), Floats{});
      const Floats away = 2.0f * pull[AWAY] * w.weight * lit.away;
      for (int k = 0; k < 3; ++k) {
        q += pull[NORMAL + k] * s.normal[k];
        d->normal[k] = w.weight * pull[NORMAL + k] + towards * lit.way[k] + away * ray.direction[k];
      }
    }
    if (volume.spread) {
      const Spread p = spread(w.weight, t);
      const Floats behind = (total[REACH] - p.reach - w.weight * t) - t * (total[ALPHA] - p.weight - w.weight);
      q += 2.0f * pull[SPREAD] * (t * p.weight - p.reach + behind + w.weight * (volume.step / 3));
    }
    const Floats own = keep(w.open, w.weight * q);
    const Floats left = rest - running(own);
    rest = left[LANES - 1];
    d->density = keep(w.open, (w.after * q - left) * volume.step);
  }

 private:
  struct Weights { Floats weight, after; Ints open; };
  struct Lit { Floats share, facing, away, way[3]; };
  struct Spread { Floats weight, reach; };

  Weights weigh(Floats density) {
    const Floats kept = exponential(density * -volume.step);
    const Floats after = through * products(kept), before = moved_up<1>(after, same(through));
    through = after[LANES - 1];
    const Ints open = before > EXHAUSTED;
    return {keep(open, before - after), after, open};
  }

  // Poole et al. 2022, section 3.1: the share of a point light that a surface sends on, and some from everywhere.
  Lit light(const Samples& s, Floats t) const {
    Lit lit = {same(1.0f), {}, {}, {}};
    if (!volume.normals) return lit;
    Floats backward = {};
    for (int d = 0; d < 3; ++d) backward += s.normal[d] * ray.direction[d];
    lit.away = larger(backward, Floats{});
    if (ray.shade == ALBEDO) return lit;
    Floats square = same(1e-12f);
    for (int d = 0; d < 3; ++d) {
      lit.way[d] = ray.light[d] - ray.origin[d] - t * ray.direction[d];
      square += lit.way[d] * lit.way[d];
    }
    const Floats shorter = 1.0f / root(square);
    for (int d = 0; d < 3; ++d) {
      lit.way[d] *= shorter;
      lit.facing += s.normal[d] * lit.way[d];
    }
    lit.share = volume.ambient + (1 - volume.ambient) * larger(lit.facing, Floats{});
    return lit;
  }

  // Sums of weight, and of weight times distance, over the samples before each one.
  Spread spread(Floats weight, Floats t) {
    const Floats weights = passed + running(weight), far = passed_reach + running(weight * t);
    const Spread before = {moved_up<1>(weights, same(passed)), moved_up<1>(far, same(passed_reach))};
    passed = weights[LANES - 1];
    passed_reach = far[LANES - 1];
    return before;
  }

  const Volume& volume;
  const Ray& ray;
  Floats wide[LAYERS] = {};
  float through = 1, passed = 0, passed_reach = 0, rest = 0;
  float total[LAYERS], pull[LAYERS];
};

}  // namespace sds3d
