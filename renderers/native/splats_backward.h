// The way back from the gradients of pixels to sums for each pair of splat and tile, front to back as well.
//
// With v the gradient of a pixel's colour C and u that of its alpha, and the notation of splats_draw.h,
//   dL/da_i = T_i (c_i . v) - R_i / (1 - a_i),   R_i = C . v - T_end u - sum over j <= i of w_j (c_j . v),
// so nothing but the running R has to be known from the forward pass.
#pragma once
#include "splats_blocks.h"

namespace sds3d {
namespace {

constexpr int ROOM = 32;

// What is known of the pixels of a tile.
template <int CHANNELS>
struct Pixels {
  alignas(64) float through[PIXELS];
  alignas(64) float rest[PIXELS];             // R of the header
  alignas(64) float d_layers[CHANNELS][PIXELS];

  uint32_t load_gradients(const Scene& scene, const Picture& picture, const Tile& tile) {
    std::memset(rest, 0, sizeof rest);
    std::memset(d_layers, 0, sizeof d_layers);
    tile.each_pixel(scene, [&](int place, int64_t pixel) {
      float sum = (picture.alpha[pixel] - 1.0f) * picture.d_alpha[pixel];
      const auto take = [&](int k, float d, float value) { d_layers[k][place] = d, sum += d * value; };
      for (int k = 0; k < 4; ++k) take(k, picture.d_colour[4 * pixel + k], picture.colour[4 * pixel + k]);
      for (int k = 4; k < CHANNELS; ++k)
        take(k, picture.d_normal[3 * pixel + k - 4], picture.normal[3 * pixel + k - 4]);
      rest[place] = sum;
    });
    return tile.open(scene, through);
  }
};

// What of them changes from splat to splat, in registers.
struct State {
  Floats through[VECTORS], rest[VECTORS];

  template <class Pixels>
  void load_block(const Pixels& pixels, int at) {
    for (int v = 0; v < VECTORS; ++v)
      through[v] = load(pixels.through + at + v * LANES), rest[v] = load(pixels.rest + at + v * LANES);
  }
  template <class Pixels>
  void store_block(Pixels& pixels, int at) const {
    for (int v = 0; v < VECTORS; ++v)
      store(pixels.through + at + v * LANES, through[v]), store(pixels.rest + at + v * LANES, rest[v]);
  }
};

// What follows walks the tiles for one kind of splat. A Kind says: what it reads of a splat (Splat), what it keeps of a
// tile's pixels (Pixels) and of those of a block (State), what it knows of a splat on a block before its turn (Placed,
// with `place`), what it sums up (Moments, with `add` and `store_sums`), how many sums that are (sums), and how a splat
// adds to them (take).
template <class Kind>
bool block_backward(const Batch<typename Kind::Splat, ROOM>& batch, uint64_t bits, int block,
                    typename Kind::Pixels& pixels, typename Kind::Moments* moments) {
  if (!bits) return true;
  const Floats x = columns_of(block % (TILE / SIDE) * SIDE);
  Floats y[VECTORS];
  for (int v = 0; v < VECTORS; ++v) y[v] = rows_of(block / (TILE / SIDE) * SIDE, v);
  typename Kind::State state;
  state.load_block(pixels, block * BLOCK);
  bool open = true;
  int j = __builtin_ctzll(bits);
  typename Kind::Placed placed;
  placed.place(batch.splats[j], x, y);
  while (bits && open) {
    bits &= bits - 1;
    // The next splat is placed before this one is done with: it waits for nothing.
    const int next = bits ? __builtin_ctzll(bits) : j;
    typename Kind::Placed then;
    then.place(batch.splats[next], x, y);
    moments[j].add(Kind::take(placed, state, pixels, block * BLOCK));
    open = any_open(state.through);
    j = next, placed = then;
  }
  state.store_block(pixels, block * BLOCK);
  return open;
}

// Returns the last row of `records` whose sums were written, -1 for none: those behind it add nothing.
template <class Kind>
int32_t tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  const Tile tile(scene, plan, index);
  typename Kind::Pixels pixels;
  Batch<typename Kind::Splat, ROOM> batch;
  typename Kind::Moments moments[ROOM];
  uint32_t open = pixels.load_gradients(scene, picture, tile);
  int32_t last = -1;
  for (const int32_t* at = tile.begin; at < tile.end && open; at += batch.count) {
    batch.fill(scene, plan, tile, at, open);
    std::memset(static_cast<void*>(moments), 0, batch.count * sizeof moments[0]);
    for (uint32_t left = open; left; left &= left - 1) {
      const int block = __builtin_ctz(left);
      if (!block_backward<Kind>(batch, batch.of_block[block], block, pixels, moments)) open &= ~(1u << block);
    }
    for (int j = 0; j < batch.count; ++j) moments[j].store_sums(picture.pair_sums + Kind::sums * batch.pairs[j]);
    last = at[batch.count - 1];
  }
  return last;
}

}  // namespace
}  // namespace sds3d
