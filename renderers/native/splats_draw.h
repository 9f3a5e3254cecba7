// Blending splats into pixels, front to back, one tile at a time.
//
// A pixel lets T through. Splat i of its list adds w_i = a_i T_i times its colour c_i, and T_{i+1} = T_i (1 - a_i)
// (Kerbl et al. 2023, equation 3). A pixel that has taken its last splat keeps -T, so that the sign says so.
//
// Of surfels, a pixel may also show its distortion, the sum over pairs j < i of 2 w_i w_j (z_i - z_j).
#pragma once
#include "splats_blocks.h"

namespace sds3d {
namespace {

constexpr int ROOM = 64;

// Adds the splats of `bits` to one block. Returns whether a pixel is left open.
template <class Splat, int CHANNELS, bool DISTORTION>
bool draw_block(const Batch<Splat, ROOM>& batch, uint64_t bits, int block, float* through_at, float (*layers)[PIXELS]) {
  constexpr int LAYERS = CHANNELS + DISTORTION, DEPTH_LAYER = 3;
  const Floats x = columns_of(block % (TILE / SIDE) * SIDE);
  Floats y[VECTORS], through[VECTORS], sum[LAYERS][VECTORS];
  for (int v = 0; v < VECTORS; ++v) {
    const int at = block * BLOCK + v * LANES;
    y[v] = rows_of(block / (TILE / SIDE) * SIDE, v);
    through[v] = load(through_at + at);
    for (int k = 0; k < LAYERS; ++k) sum[k][v] = load(layers[k] + at);
  }
  if (!bits) return true;
  bool open = true;
  const Splat* s = batch.splats + __builtin_ctzll(bits);
  Cover covered = cover(*s, x, y);
  while (bits && open) {
    bits &= bits - 1;
    // The next splat's alpha waits for nothing: begun here, it is ready when this splat is done.
    const Splat* next = bits ? batch.splats + __builtin_ctzll(bits) : s;
    const Cover then = cover(*next, x, y);
    for (int v = 0; v < VECTORS; ++v) {
      Floats weight;
      const Floats before = through[v];
      pass(through[v], covered.alpha[v], weight);
      if constexpr (DISTORTION)
        sum[CHANNELS][v] += 2 * weight * (s->feature[DEPTH_LAYER] * (1 - before) - sum[DEPTH_LAYER][v]);
      for (int k = 0; k < CHANNELS; ++k) sum[k][v] += weight * s->feature[k];
    }
    open = any_open(through);
    s = next, covered = then;
  }
  for (int v = 0; v < VECTORS; ++v) {
    const int at = block * BLOCK + v * LANES;
    store(through_at + at, through[v]);
    for (int k = 0; k < LAYERS; ++k) store(layers[k] + at, sum[k][v]);
  }
  return open;
}

template <class Splat, int CHANNELS, bool DISTORTION>
void draw_tile(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  const Tile tile(scene, plan, index);
  alignas(64) float through[PIXELS];
  alignas(64) float layers[CHANNELS + DISTORTION][PIXELS] = {};
  Batch<Splat, ROOM> batch;
  uint32_t open = tile.open(scene, through);
  for (const int32_t* at = tile.begin; at < tile.end && open; at += batch.count) {
    batch.fill(scene, plan, tile, at, open);
    for (uint32_t left = open; left; left &= left - 1) {
      const int block = __builtin_ctz(left);
      if (!draw_block<Splat, CHANNELS, DISTORTION>(batch, batch.of_block[block], block, through, layers))
        open &= ~(1u << block);
    }
  }
  tile.each_pixel(scene, [&](int place, int64_t pixel) {
    for (int k = 0; k < 4; ++k) picture.colour[4 * pixel + k] = layers[k][place];
    for (int k = 4; k < CHANNELS; ++k) picture.normal[3 * pixel + k - 4] = layers[k][place];
    if constexpr (DISTORTION) picture.distortion[pixel] = layers[CHANNELS][place];
    picture.alpha[pixel] = 1.0f - std::fabs(through[place]);
  });
}

}  // namespace
}  // namespace sds3d
