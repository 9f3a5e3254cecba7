// The way back from pixels to surfels.
//
// With g the gradient of a pixel's distortion, and A, B the sums over j < i of w_j and w_j z_j (all of them: A_end,
// B_end), what a weight adds to the loss gets 2 g (2 (z_i A - B) + B_end - z_i A_end), and a depth z_i gets
// 2 g w_i (2 A + w_i - A_end).
#include "splats_backward.h"
#include "surfels_blocks.h"

namespace sds3d {
namespace {

// The sums of one pair before the lanes are added up; `SurfelSums` says what they are.
template <int CHANNELS>
struct SurfelMoments {
  Floats features[CHANNELS], of_s, of_u, of_v, of_w, of_ux, of_uy, of_vx, of_vy, of_wx, of_wy, of_blur_x, of_blur_y;

  void store_sums(float* to) const {
    store_four(to, sums(features[0], features[1], features[2], features[3]));
    store_four(to + OF_S, sums(of_s, of_u, of_v, of_w));
    store_four(to + OF_UX, sums(of_ux, of_uy, of_vx, of_vy));
    store_four(to + OF_WX, sums(of_wx, of_wy, of_blur_x, of_blur_y));
    if constexpr (CHANNELS > 4) store_four(to + OF_NORMAL, sums(features[4], features[5], features[6], Floats{}));
  }
};

// What the distortion needs to know of the pixels of a tile besides.
template <int CHANNELS>
struct DistortedPixels : Pixels<CHANNELS> {
  alignas(64) float moment[PIXELS];           // B of the header
  alignas(64) float all_alpha[PIXELS], all_moment[PIXELS], d_distortion[PIXELS];

  uint32_t load_gradients(const Scene& scene, const Picture& picture, const Tile& tile) {
    const uint32_t open = Pixels<CHANNELS>::load_gradients(scene, picture, tile);
    for (float* array : {moment, all_alpha, all_moment, d_distortion}) std::memset(array, 0, sizeof moment);
    const auto one = [&](int place, int64_t pixel) {
      all_alpha[place] = picture.alpha[pixel], all_moment[place] = picture.colour[4 * pixel + DEPTH];
      d_distortion[place] = 2 * picture.d_distortion[pixel];
      this->rest[place] += d_distortion[place] * picture.distortion[pixel];
    };
    const auto four = [&](int place, int64_t pixel) {
      for (int k = 0; k < SIDE; ++k) one(place + k, pixel + k);
    };
    tile.each_pixel(scene, four, one);
    return open;
  }

  // What a weight adds to the loss by the distortion; adds to the gradient of the depth.
  Floats distort(float z, const Passing& p, int at, Floats& of_depth) {
    const Floats twice = load(d_distortion + at), all = load(all_alpha + at), sooner = 1.0f - p.before;
    const Floats before = load(moment + at);
    of_depth += twice * p.weight * (2 * sooner + p.weight - all);
    store(moment + at, before + p.weight * z);
    return twice * (2 * (z * sooner - before) + load(all_moment + at) - z * all);
  }
};

template <int CHANNELS, bool DISTORTION>
struct Surfel {
  using Splat = Disc;
  using Pixels = std::conditional_t<DISTORTION, DistortedPixels<CHANNELS>, sds3d::Pixels<CHANNELS>>;
  using Moments = SurfelMoments<CHANNELS>;
  static constexpr int sums = CHANNELS > 4 ? SURFEL_SUMS : OF_NORMAL;

  static inline bool take(const Disc& s, Pixels& pixels, int block, Moments& m) {
    uint32_t open = 0;
    for (int part = 0; part < VECTORS; ++part) {
      const int at = block * BLOCK + part * LANES;
      const Disc::Seen seen(s, block, part);
      const Floats d_s = pixels.take(s, seen.alpha, at, m.features, open, [&](const Passing& p) {
        if constexpr (DISTORTION) return pixels.distort(s.feature[DEPTH], p, at, m.features[DEPTH]);
        else return Floats{};
      });
      add_geometry(m, seen.hit, d_s);
    }
    return open;
  }

  static inline void add_geometry(Moments& m, const Hit& hit, Floats d_s) {
    const Floats d_disc = keep(hit.on_disc, d_s * hit.clear), d_blur = keep(~hit.on_disc, d_s);
    const Floats u = keep(hit.on_disc, hit.u * d_disc), v = keep(hit.on_disc, hit.v * d_disc);
    const Floats w = -keep(hit.on_disc, hit.squared * d_disc);
    m.of_s += d_s, m.of_u += u, m.of_v += v, m.of_w += w;
    m.of_ux += u * hit.dx, m.of_uy += u * hit.dy, m.of_vx += v * hit.dx, m.of_vy += v * hit.dy;
    m.of_wx += w * hit.dx, m.of_wy += w * hit.dy;
    m.of_blur_x += d_blur * hit.blur_x, m.of_blur_y += d_blur * hit.blur_y;
  }
};

template <int CHANNELS>
int64_t tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  return picture.distortion ? tile_backward<Surfel<CHANNELS, true>>(scene, plan, picture, index)
                            : tile_backward<Surfel<CHANNELS, false>>(scene, plan, picture, index);
}

}  // namespace

void draw_surfels_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t* last_of_tile) {
  each_tile(scene, [&](int64_t index) {
    last_of_tile[index] = scene.normals ? tile_backward<7>(scene, plan, picture, index)
                                        : tile_backward<4>(scene, plan, picture, index);
  });
}

}  // namespace sds3d
