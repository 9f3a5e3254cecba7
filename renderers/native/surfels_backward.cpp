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

  void add(const SurfelMoments& more) {
    for (int k = 0; k < CHANNELS; ++k) features[k] += more.features[k];
    of_s += more.of_s, of_u += more.of_u, of_v += more.of_v, of_w += more.of_w;
    of_ux += more.of_ux, of_uy += more.of_uy, of_vx += more.of_vx, of_vy += more.of_vy;
    of_wx += more.of_wx, of_wy += more.of_wy, of_blur_x += more.of_blur_x, of_blur_y += more.of_blur_y;
  }

  void store_sums(float* to) const {
    store_four(to, sums(features[0], features[1], features[2], features[3]));
    store_four(to + OF_S, sums(of_s, of_u, of_v, of_w));
    store_four(to + OF_UX, sums(of_ux, of_uy, of_vx, of_vy));
    store_four(to + OF_WX, sums(of_wx, of_wy, of_blur_x, of_blur_y));
    if constexpr (CHANNELS > 4) store_four(to + OF_NORMAL, sums(features[4], features[5], features[6], Floats{}));
  }
};

// One surfel on the pixels of one block: what does not wait for those before it.
struct PlacedSurfel {
  Hit hit[VECTORS];
  Floats alpha[VECTORS], clear[VECTORS];      // clear = 1 / (1 - alpha)
  const Disc* splat;

  void place(const Disc& s, Floats x, const Floats* y) {
    splat = &s;
    for (int v = 0; v < VECTORS; ++v) {
      hit[v] = Hit(s, x, y[v]);
      alpha[v] = alpha_of(s, hit[v]);
      clear[v] = 1.0f / (1.0f - alpha[v]);
    }
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
    tile.each_pixel(scene, [&](int place, int64_t pixel) {
      all_alpha[place] = picture.alpha[pixel], all_moment[place] = picture.colour[4 * pixel + DEPTH];
      d_distortion[place] = 2 * picture.d_distortion[pixel];
      this->rest[place] += d_distortion[place] * picture.distortion[pixel];
    });
    return open;
  }
};

struct DistortedState : State {
  Floats moment[VECTORS];

  template <class Pixels>
  void load_block(const Pixels& pixels, int at) {
    State::load_block(pixels, at);
    for (int v = 0; v < VECTORS; ++v) moment[v] = load(pixels.moment + at + v * LANES);
  }
  template <class Pixels>
  void store_block(Pixels& pixels, int at) const {
    State::store_block(pixels, at);
    for (int v = 0; v < VECTORS; ++v) store(pixels.moment + at + v * LANES, moment[v]);
  }
};

template <int CHANNELS, bool DISTORTION>
struct Surfel {
  using Splat = Disc;
  using Pixels = std::conditional_t<DISTORTION, DistortedPixels<CHANNELS>, sds3d::Pixels<CHANNELS>>;
  using State = std::conditional_t<DISTORTION, DistortedState, sds3d::State>;
  using Placed = PlacedSurfel;
  using Moments = SurfelMoments<CHANNELS>;
  static constexpr int sums = CHANNELS > 4 ? SURFEL_SUMS : OF_NORMAL;

  static inline Moments take(const Placed& placed, State& state, const Pixels& pixels, int at) {
    Moments m = {};
    const Disc& s = *placed.splat;
    for (int v = 0; v < VECTORS; ++v, at += LANES) {
      const Floats before = state.through[v], alpha = placed.alpha[v];
      Floats weight, toward = {};
      const Ints open = pass(state.through[v], alpha, weight);
      for (int k = 0; k < CHANNELS; ++k) {
        const Floats d = load(pixels.d_layers[k] + at);
        toward += s.feature[k] * d;
        m.features[k] += weight * d;
      }
      if constexpr (DISTORTION) {
        const float z = s.feature[DEPTH];
        const Floats twice = load(pixels.d_distortion + at), all = load(pixels.all_alpha + at), sooner = 1.0f - before;
        toward += twice * (2 * (z * sooner - state.moment[v]) + load(pixels.all_moment + at) - z * all);
        m.features[DEPTH] += twice * weight * (2 * sooner + weight - all);
        state.moment[v] += weight * z;
      }
      state.rest[v] -= weight * toward;
      const Floats d_alpha = state.rest[v] * placed.clear[v] - before * toward;
      add_geometry(m, placed.hit[v], keep(open & (alpha < OPAQUE), alpha * d_alpha));
    }
    return m;
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
int32_t tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  return picture.distortion ? tile_backward<Surfel<CHANNELS, true>>(scene, plan, picture, index)
                            : tile_backward<Surfel<CHANNELS, false>>(scene, plan, picture, index);
}

}  // namespace

void draw_surfels_backward(const Scene& scene, const Plan& plan, const Picture& picture, int32_t* last_of_tile) {
  each_tile(scene, [&](int64_t index) {
    last_of_tile[index] = scene.normals ? tile_backward<7>(scene, plan, picture, index)
                                        : tile_backward<4>(scene, plan, picture, index);
  });
}

}  // namespace sds3d
