// The way back from the gradients of pixels to sums for each pair of splat and tile, front to back as well.
//
// With v the gradient of a pixel's colour C and u that of its alpha, and the notation of splats_draw.cpp,
//   dL/da_i = T_i (c_i . v) - R_i / (1 - a_i),   R_i = C . v - T_end u - sum over j <= i of w_j (c_j . v),
// so nothing but the running R has to be known from the forward pass.
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
struct Placed {
  Floats dx, dy[VECTORS];
  Floats alpha[VECTORS], clear[VECTORS];      // clear = 1 / (1 - alpha)
  const Near* splat;

  void place(const Near& s, Floats x, const Floats* y) {
    splat = &s;
    dx = s.x - x;
    for (int v = 0; v < VECTORS; ++v) dy[v] = s.y - y[v];
    const Cover covered = cover(s, dx, dy);
    for (int v = 0; v < VECTORS; ++v) alpha[v] = covered.alpha[v], clear[v] = 1.0f / (1.0f - covered.alpha[v]);
  }
};

template <int CHANNELS, bool ABSOLUTE>
static inline Moments<CHANNELS, ABSOLUTE> take(const Placed& placed, Floats* through, Floats* rest,
                                               const float* d_layers) {
  Moments<CHANNELS, ABSOLUTE> m = {};
  Floats t0 = {}, t1 = {}, t2 = {};           // moments in dy
  const Near& s = *placed.splat;
  const Floats dx = placed.dx;
  const Floats* dy = placed.dy;
  for (int v = 0; v < VECTORS; ++v) {
    const Floats before = through[v], alpha = placed.alpha[v];
    Floats weight, toward = {};
    const Ints open = pass(through[v], alpha, weight);
    for (int k = 0; k < CHANNELS; ++k) {
      const Floats d = load(d_layers + k * PIXELS + v * LANES);
      toward += s.feature[k] * d;
      m.features[k] += weight * d;
    }
    rest[v] -= weight * toward;
    const Floats d_alpha = rest[v] * placed.clear[v] - before * toward;
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

template <int CHANNELS, bool ABSOLUTE>
bool block_backward(const Batch<ROOM>& batch, uint64_t bits, int block, Pixels<CHANNELS>& pixels,
                    Moments<CHANNELS, ABSOLUTE>* moments) {
  const Floats x = columns_of(block % (TILE / SIDE) * SIDE);
  Floats y[VECTORS], through[VECTORS], rest[VECTORS];
  for (int v = 0; v < VECTORS; ++v) {
    y[v] = rows_of(block / (TILE / SIDE) * SIDE, v);
    through[v] = load(pixels.through + block * BLOCK + v * LANES);
    rest[v] = load(pixels.rest + block * BLOCK + v * LANES);
  }
  if (!bits) return true;
  bool open = true;
  int j = __builtin_ctzll(bits);
  Placed placed;
  placed.place(batch.splats[j], x, y);
  while (bits && open) {
    bits &= bits - 1;
    // The next splat is placed before this one is done with: it waits for nothing.
    const int next = bits ? __builtin_ctzll(bits) : j;
    Placed then;
    then.place(batch.splats[next], x, y);
    moments[j].add(take<CHANNELS, ABSOLUTE>(placed, through, rest, pixels.d_layers[0] + block * BLOCK));
    open = any_open(through);
    j = next, placed = then;
  }
  for (int v = 0; v < VECTORS; ++v) {
    store(pixels.through + block * BLOCK + v * LANES, through[v]);
    store(pixels.rest + block * BLOCK + v * LANES, rest[v]);
  }
  return open;
}

// Returns the last row of `records` whose sums were written, -1 for none: those behind it add nothing.
template <int CHANNELS, bool ABSOLUTE>
int32_t tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  const Tile tile(scene, plan, index);
  Pixels<CHANNELS> pixels;
  Batch<ROOM> batch;
  Moments<CHANNELS, ABSOLUTE> moments[ROOM];
  uint32_t open = pixels.load_gradients(scene, picture, tile);
  int32_t last = -1;
  for (const int32_t* at = tile.begin; at < tile.end && open; at += batch.count) {
    batch.fill(scene, plan, tile, at, open);
    std::memset(static_cast<void*>(moments), 0, batch.count * sizeof moments[0]);
    for (uint32_t left = open; left; left &= left - 1) {
      const int block = __builtin_ctz(left);
      if (!block_backward(batch, batch.of_block[block], block, pixels, moments)) open &= ~(1u << block);
    }
    for (int j = 0; j < batch.count; ++j)
      moments[j].store_sums(picture.pair_sums + sums_per_pair(scene) * batch.pairs[j]);
    last = at[batch.count - 1];
  }
  return last;
}

template <int CHANNELS>
int32_t tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  return picture.d_means2d_absolute ? tile_backward<CHANNELS, true>(scene, plan, picture, index)
                                    : tile_backward<CHANNELS, false>(scene, plan, picture, index);
}

}  // namespace

void draw_backward(const Scene& scene, const Plan& plan, const Picture& picture, int32_t* last_of_tile) {
  const int64_t tiles = int64_t(scene.views) * tiles_across(scene) * tiles_down(scene);
#pragma omp parallel for schedule(dynamic) num_threads(scene.threads) if (scene.threads > 1)
  for (int64_t index = 0; index < tiles; ++index)
    last_of_tile[index] = scene.normals ? tile_backward<7>(scene, plan, picture, index)
                                        : tile_backward<4>(scene, plan, picture, index);
}

}  // namespace sds3d
