// The way back from pixels to Gaussians.
#include "splats_backward.h"

namespace sds3d {
namespace {

// The sums of one pair before the lanes are added up; `Sums` says what they are.
template <int CHANNELS, bool ABSOLUTE>
struct Moments {
  Floats features[CHANNELS], of_s[6], absolute[ABSOLUTE ? 2 : 0];

  void add(const Moments& more) {
    for (int k = 0; k < CHANNELS; ++k) features[k] += more.features[k];
    for (int k = 0; k < 6; ++k) of_s[k] += more.of_s[k];
    if constexpr (ABSOLUTE) absolute[0] += more.absolute[0], absolute[1] += more.absolute[1];
  }

  void store_sums(float* to) const {
    const Floats none = {};
    const Floats* m = of_s;
    store_four(to + RED, sums(features[0], features[1], features[2], features[3]));
    store_four(to + S, sums(m[0], m[1], m[2], m[3]));
    if constexpr (ABSOLUTE) store_four(to + SXY, sums(m[4], m[5], absolute[0], absolute[1]));
    else store_four(to + SXY, sums(m[4], m[5], none, none));
    if constexpr (CHANNELS > 4) store_four(to + NORMAL_X, sums(features[4], features[5], features[6], none));
  }
};

// One splat on the pixels of one block: what does not wait for the splats before it.
struct PlacedGaussian {
  Floats dx, dy[VECTORS];
  Floats alpha[VECTORS], clear[VECTORS];      // clear = 1 / (1 - alpha)
  const Near* splat;

  void place(const Near& s, Floats x, const Floats* y) {
    splat = &s;
    dx = s.x - x;
    for (int v = 0; v < VECTORS; ++v) dy[v] = s.y - y[v];
    const Cover covered = cover(s, x, y);
    for (int v = 0; v < VECTORS; ++v) alpha[v] = covered.alpha[v], clear[v] = 1.0f / (1.0f - covered.alpha[v]);
  }
};

template <int CHANNELS, bool ABSOLUTE>
struct Gaussian {
  using Splat = Near;
  using Pixels = sds3d::Pixels<CHANNELS>;
  using State = sds3d::State;
  using Placed = PlacedGaussian;
  using Moments = sds3d::Moments<CHANNELS, ABSOLUTE>;
  static constexpr int sums = CHANNELS > 4 ? SUMS : NORMAL_X;

  static inline Moments take(const Placed& placed, State& state, const Pixels& pixels, int at) {
    Moments m = {};
    Floats t0 = {}, t1 = {}, t2 = {};           // moments in dy
    const Near& s = *placed.splat;
    const Floats dx = placed.dx;
    const Floats* dy = placed.dy;
    for (int v = 0; v < VECTORS; ++v) {
      const Floats before = state.through[v], alpha = placed.alpha[v];
      Floats weight, toward = {};
      const Ints open = pass(state.through[v], alpha, weight);
      for (int k = 0; k < CHANNELS; ++k) {
        const Floats d = load(pixels.d_layers[k] + at + v * LANES);
        toward += s.feature[k] * d;
        m.features[k] += weight * d;
      }
      state.rest[v] -= weight * toward;
      const Floats d_alpha = state.rest[v] * placed.clear[v] - before * toward;
      const Floats d_s = keep(open & (alpha < OPAQUE), alpha * d_alpha);
      t0 += d_s;
      t1 += d_s * dy[v];
      t2 += d_s * dy[v] * dy[v];
      if constexpr (ABSOLUTE) {
        const auto size = [](Floats a) { return (Floats)((Ints)a & INT32_MAX); };
        m.absolute[0] += size(d_s * (2 * s.xx * dx + s.xy * dy[v]));
        m.absolute[1] += size(d_s * (2 * s.yy * dy[v] + s.xy * dx));
      }
    }
    m.of_s[0] = t0, m.of_s[1] = t0 * dx, m.of_s[2] = t1;
    m.of_s[3] = t0 * dx * dx, m.of_s[4] = t1 * dx, m.of_s[5] = t2;
    return m;
  }
};

template <int CHANNELS>
int32_t tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  return picture.d_means2d_absolute ? tile_backward<Gaussian<CHANNELS, true>>(scene, plan, picture, index)
                                    : tile_backward<Gaussian<CHANNELS, false>>(scene, plan, picture, index);
}

}  // namespace

void draw_backward(const Scene& scene, const Plan& plan, const Picture& picture, int32_t* last_of_tile) {
  each_tile(scene, [&](int64_t index) {
    last_of_tile[index] = scene.normals ? tile_backward<7>(scene, plan, picture, index)
                                        : tile_backward<4>(scene, plan, picture, index);
  });
}

}  // namespace sds3d
