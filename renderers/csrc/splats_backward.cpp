// The way back from pixels to Gaussians.
#include "splats_backward.h"

namespace sds3d {
namespace {

// The sums of one pair before the lanes are added up; `Sums` says what they are.
template <int CHANNELS, bool ABSOLUTE>
struct Moments {
  Floats features[CHANNELS], of_s[6], absolute[ABSOLUTE ? 2 : 0];

  void store_sums(float* to) const {
    const Floats none = {};
    const Floats* m = of_s;
    store_four(to + RED, sums(features[0], features[1], features[2], features[3]));
    store_four(to + S, sums(m[0], m[1], m[2], m[3]));
    if constexpr (ABSOLUTE) store_four(to + SUV, sums(m[4], m[5], absolute[0], absolute[1]));
    else store_four(to + SUV, sums(m[4], m[5], none, none));
    if constexpr (CHANNELS > 4) store_four(to + NORMAL_X, sums(features[4], features[5], features[6], none));
  }
};

template <int CHANNELS, bool ABSOLUTE>
struct Gaussian {
  using Splat = Near;
  using Pixels = sds3d::Pixels<CHANNELS>;
  using Moments = sds3d::Moments<CHANNELS, ABSOLUTE>;
  static constexpr int sums = CHANNELS > 4 ? SUMS : NORMAL_X;

  static inline bool take(const Near& s, Pixels& pixels, int block, Moments& m) {
    uint32_t open = 0;
    for (int part = 0; part < VECTORS; ++part) {
      const Near::Seen seen(s, block, part);
      const Floats d_s = pixels.take(s, seen.alpha, block * BLOCK + part * LANES, m.features, open,
                                       [](const Passing&) { return Floats{}; });
      const Floats d_su = d_s * seen.u, d_sv = d_s * seen.v;
      m.of_s[0] += d_s, m.of_s[1] += d_su, m.of_s[2] += d_sv;
      m.of_s[3] += d_su * seen.u, m.of_s[4] += d_su * seen.v, m.of_s[5] += d_sv * seen.v;
      if constexpr (ABSOLUTE) {
        const auto size = [](Floats a) { return (Floats)((Ints)a & INT32_MAX); };
        m.absolute[0] += size(2 * s.ux * d_su);
        m.absolute[1] += size(2 * (s.uy * d_su + s.vy * d_sv));
      }
    }
    return open;
  }
};

template <int CHANNELS>
int64_t tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  return picture.d_means2d_absolute ? tile_backward<Gaussian<CHANNELS, true>>(scene, plan, picture, index)
                                    : tile_backward<Gaussian<CHANNELS, false>>(scene, plan, picture, index);
}

}  // namespace

void draw_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t* last_of_tile) {
  each_tile(scene, [&](int64_t index) {
    last_of_tile[index] = scene.normals ? tile_backward<7>(scene, plan, picture, index)
                                        : tile_backward<4>(scene, plan, picture, index);
  });
}

}  // namespace sds3d
