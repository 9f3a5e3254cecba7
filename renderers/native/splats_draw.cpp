// Blending splats into pixels, front to back, one tile at a time.
//
// A pixel lets T through. Splat i of its list adds w_i = a_i T_i times its colour c_i, and T_{i+1} = T_i (1 - a_i)
// (Kerbl et al. 2023, equation 3). A pixel that has taken its last splat keeps -T, so that the sign says so.
#include "splats_blocks.h"

namespace sds3d {
namespace {

constexpr int ROOM = 64;

// Adds the splats of `bits` to one block. Returns whether a pixel is left open.
template <int CHANNELS>
bool draw_block(const Batch<ROOM>& batch, uint64_t bits, int block, float* through_at, float (*layers)[PIXELS]) {
  const Floats x = columns_of(block % (TILE / SIDE) * SIDE);
  Floats y[VECTORS], through[VECTORS], sum[CHANNELS][VECTORS];
  for (int v = 0; v < VECTORS; ++v) {
    const int at = block * BLOCK + v * LANES;
    y[v] = rows_of(block / (TILE / SIDE) * SIDE, v);
    through[v] = load(through_at + at);
    for (int k = 0; k < CHANNELS; ++k) sum[k][v] = load(layers[k] + at);
  }
  if (!bits) return true;
  const auto covered_by = [&](const Near& s) {
    Floats dy[VECTORS];
    for (int v = 0; v < VECTORS; ++v) dy[v] = s.y - y[v];
    return cover(s, s.x - x, dy);
  };
  bool open = true;
  const Near* s = batch.splats + __builtin_ctzll(bits);
  Cover covered = covered_by(*s);
  while (bits && open) {
    bits &= bits - 1;
    // The next splat's alpha waits for nothing: begun here, it is ready when this splat is done.
    const Near* next = bits ? batch.splats + __builtin_ctzll(bits) : s;
    const Cover then = covered_by(*next);
    for (int v = 0; v < VECTORS; ++v) {
      Floats weight;
      pass(through[v], covered.alpha[v], weight);
      for (int k = 0; k < CHANNELS; ++k) sum[k][v] += weight * s->feature[k];
    }
    open = any_open(through);
    s = next, covered = then;
  }
  for (int v = 0; v < VECTORS; ++v) {
    const int at = block * BLOCK + v * LANES;
    store(through_at + at, through[v]);
    for (int k = 0; k < CHANNELS; ++k) store(layers[k] + at, sum[k][v]);
  }
  return open;
}

template <int CHANNELS>
void draw_tile(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  const Tile tile(scene, plan, index);
  alignas(64) float through[PIXELS];
  alignas(64) float layers[CHANNELS][PIXELS] = {};
  Batch<ROOM> batch;
  uint32_t open = tile.open(scene, through);
  for (const int32_t* at = tile.begin; at < tile.end && open; at += batch.count) {
    batch.fill(scene, plan, tile, at, open);
    for (uint32_t left = open; left; left &= left - 1) {
      const int block = __builtin_ctz(left);
      if (!draw_block<CHANNELS>(batch, batch.of_block[block], block, through, layers)) open &= ~(1u << block);
    }
  }
  tile.each_pixel(scene, [&](int place, int64_t pixel) {
    for (int k = 0; k < 4; ++k) picture.colour[4 * pixel + k] = layers[k][place];
    for (int k = 4; k < CHANNELS; ++k) picture.normal[3 * pixel + k - 4] = layers[k][place];
    picture.alpha[pixel] = 1.0f - std::fabs(through[place]);
  });
}

}  // namespace

void draw(const Scene& scene, const Plan& plan, const Picture& picture) {
  const int64_t tiles = int64_t(scene.views) * tiles_across(scene) * tiles_down(scene);
#pragma omp parallel for schedule(dynamic) num_threads(scene.threads) if (scene.threads > 1)
  for (int64_t index = 0; index < tiles; ++index)
    scene.normals ? draw_tile<7>(scene, plan, picture, index) : draw_tile<4>(scene, plan, picture, index);
}

}  // namespace sds3d
