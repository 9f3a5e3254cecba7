// Blending splats into pixels, front to back, one tile at a time.
//
// A pixel lets T through. Splat i of its list adds w_i = a_i T_i times its colour c_i, and T_{i+1} = T_i (1 - a_i)
// (Kerbl et al. 2023, equation 3).
//
// Of surfels, a pixel may also show its distortion, the sum over pairs j < i of 2 w_i w_j (z_i - z_j).
#pragma once
#include "splats_blocks.h"

namespace sds3d {
namespace {

// What has been drawn of a tile.
template <int CHANNELS, bool DISTORTION>
struct Canvas {
  static constexpr int LAYERS = CHANNELS + DISTORTION, DEPTH_LAYER = 3;
  alignas(64) float through[PIXELS];          // T, also behind the last splat that was drawn
  alignas(64) float left[PIXELS];             // T where that was drawn
  alignas(64) float layers[LAYERS][PIXELS] = {};

  // Adds a splat to one block. Returns whether a pixel is left open.
  template <class Splat>
  bool add(const Splat& s, int block) {
    uint32_t open = 0;
    for (int part = 0; part < VECTORS; ++part) {
      const int at = block * BLOCK + part * LANES;
      const Passing p(through + at, typename Splat::Seen(s, block, part).alpha);
      store(left + at, choose(p.drawn, p.after, load(left + at)));
      if constexpr (DISTORTION) {
        const Floats apart = s.feature[DEPTH_LAYER] * (1 - p.before) - load(layers[DEPTH_LAYER] + at);
        store(layers[CHANNELS] + at, load(layers[CHANNELS] + at) + 2 * p.weight * apart);
      }
      for (int k = 0; k < CHANNELS; ++k) store(layers[k] + at, load(layers[k] + at) + p.weight * s.feature[k]);
      open |= above(p.after, FINISHED);
    }
    return open;
  }

  void show(const Scene& scene, const Picture& picture, const Tile& tile) const {
    const auto one = [&](int place, int64_t pixel) {
      for (int k = 0; k < 4; ++k) picture.colour[4 * pixel + k] = layers[k][place];
      for (int k = 4; k < CHANNELS; ++k) picture.normal[3 * pixel + k - 4] = layers[k][place];
      if constexpr (DISTORTION) picture.distortion[pixel] = layers[CHANNELS][place];
      picture.alpha[pixel] = 1.0f - left[place];
    };
    const auto four = [&](int place, int64_t pixel) {
      Four row[4];
      for (int k = 0; k < 4; ++k) row[k] = load_four(layers[k] + place);
      transpose(row);
      for (int k = 0; k < 4; ++k) store_four(picture.colour + 4 * (pixel + k), row[k]);
      for (int i = 0; i < 4; ++i)
        for (int k = 4; k < CHANNELS; ++k) picture.normal[3 * (pixel + i) + k - 4] = layers[k][place + i];
      if constexpr (DISTORTION) store_four(picture.distortion + pixel, load_four(layers[CHANNELS] + place));
      store_four(picture.alpha + pixel, 1.0f - load_four(left + place));
    };
    tile.each_pixel(scene, four, one);
  }
};

template <class Splat, int CHANNELS, bool DISTORTION>
void draw_tile(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  const Tile tile(scene, plan, index);
  Canvas<CHANNELS, DISTORTION> canvas;
  uint32_t open = tile.open(canvas.through);
  std::fill(canvas.left, canvas.left + PIXELS, 1.0f);
  each_splat(plan, tile, open, [&](int32_t row, uint32_t blocks) {
    if (!blocks) return;
    const Splat splat(scene, plan, tile, row);
    for (; blocks; blocks &= blocks - 1) {
      const int block = __builtin_ctz(blocks);
      if (!canvas.add(splat, block)) open &= ~(1u << block);
    }
  });
  canvas.show(scene, picture, tile);
}

}  // namespace
}  // namespace sds3d
