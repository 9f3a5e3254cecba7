// Blocks of 4 x 4 pixels, sixteen to a tile: what the drawing of splats and its way back walk over.
//
// A batch of splats is looked at together: first, for each of them, which blocks it touches at all; then block by block
// only those that do, with the block's pixels in registers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#include "lanes.h"
#include "splats.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace sds3d {
namespace {

constexpr int SIDE = 4;                       // pixels along a block
constexpr int BLOCK = SIDE * SIDE;
constexpr int BLOCKS = (TILE / SIDE) * (TILE / SIDE);
constexpr int VECTORS = BLOCK / LANES;        // registers that hold a block
constexpr int PIXELS = TILE * TILE;
static_assert(BLOCKS == 16 && BLOCK % LANES == 0, "masks of blocks have 16 bits");
constexpr float FAINTEST_LOG2 = -7.9943534f;  // log2(1/255)
constexpr float SLACK = 0.02f;                // rounding never loses a block by less than this, in log2(alpha)

constexpr int AHEAD = 12;                     // records are asked for before they are needed

struct Tile {
  int view, x, y;                             // first pixel
  int columns, rows;                          // pixels of it that lie in the picture
  const int32_t* begin;
  const int32_t* end;

  Tile(const Scene& scene, const Plan& plan, int64_t index) {
    const int across = tiles_across(scene), tiles = across * tiles_down(scene), place = int(index % tiles);
    view = int(index / tiles);
    x = place % across * TILE, y = place / across * TILE;
    columns = std::min(TILE, scene.width - x), rows = std::min(TILE, scene.height - y);
    begin = plan.pairs + plan.starts[index], end = plan.pairs + plan.starts[index + 1];
  }

  // Calls visit(place in the arrays of a tile, row-major pixel in the pictures) for each pixel in the picture.
  template <class Visit>
  void each_pixel(const Scene& scene, Visit visit) const {
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < columns; ++column) {
        const int block = row / SIDE * (TILE / SIDE) + column / SIDE;
        visit(block * BLOCK + row % SIDE * SIDE + column % SIDE,
              (int64_t(view) * scene.height + y + row) * scene.width + x + column);
      }
  }

  // Sets T to 1 where a pixel is in the picture, else to -1. Returns the blocks that have some.
  uint32_t open(const Scene& scene, float* through) const {
    std::fill(through, through + PIXELS, -1.0f);
    uint32_t blocks = 0;
    each_pixel(scene, [&](int place, int64_t) { through[place] = 1.0f, blocks |= 1u << (place / BLOCK); });
    return blocks;
  }
};

// What is drawn of a splat, besides alpha: red, green, blue, depth, normal.
static inline void read_features(const Scene& scene, const Record& r, int32_t row, float* feature) {
  std::copy(r.colour, r.colour + 3, feature);
  feature[3] = r.depth;
  if (scene.normals) std::copy(scene.normals + 3 * int64_t(row), scene.normals + 3 * int64_t(row) + 3, feature + 4);
}

// Calls draw(index) for every tile of every picture.
template <class Draw>
void each_tile(const Scene& scene, Draw draw) {
  const int64_t tiles = int64_t(scene.views) * tiles_across(scene) * tiles_down(scene);
#pragma omp parallel for schedule(dynamic) num_threads(scene.threads) if (scene.threads > 1)
  for (int64_t index = 0; index < tiles; ++index) draw(index);
}

// A Gaussian as a tile sees it: (x, y) is its centre less that of the tile's first pixel. The rest is that of `Record`.
struct Near {
  float x, y, xx, xy, yy, peak, cap;
  float feature[7];

  void read(const Scene& scene, const Plan& plan, const Tile& tile, int32_t row) {
    const Record& r = plan.records[row];
    x = r.x - float(tile.x) - 0.5f, y = r.y - float(tile.y) - 0.5f;
    xx = r.xx, xy = r.xy, yy = r.yy, peak = r.peak, cap = r.cap;
    read_features(scene, r, row, feature);
  }
};

static inline uint32_t signs(Floats v) {
#if defined(__AVX__)
  return uint32_t(_mm256_movemask_ps((__m256)v));
#elif defined(__SSE2__)
  return uint32_t(_mm_movemask_ps((__m128)v));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < LANES; ++lane) bits |= uint32_t(((Ints)v)[lane] < 0) << lane;
  return bits;
#endif
}

// x (or y) of the pixels of a block's register v.
static inline Floats columns_of(int first) {
  Floats x;
  for (int lane = 0; lane < LANES; ++lane) x[lane] = float(first + lane % SIDE);
  return x;
}
static inline Floats rows_of(int first, int v) {
  Floats y;
  for (int lane = 0; lane < LANES; ++lane) y[lane] = float(first + (v * LANES + lane) / SIDE);
  return y;
}

// The blocks of a tile where a splat may not be too faint, a bit each; (x, y) is its centre less that of the tile's first
// pixel. Along an edge of a block, log2(alpha) is a
// parabola; it is greatest in the block at the centre of the splat, or else on one of the two edges that face it.
static inline uint32_t touched(const Record& s, float x, float y) {
  const float slope_y = -0.5f * s.xy / s.yy, slope_x = -0.5f * s.xy / s.xx;
  const Floats zero = {};
  const auto within = [](Floats value, Floats low, Floats high) { return smaller(larger(value, low), high); };
  uint32_t blocks = 0;
  for (int v = 0; v < BLOCKS / LANES; ++v) {
    Floats first_x, first_y;
    for (int lane = 0; lane < LANES; ++lane) {
      const int block = v * LANES + lane;
      first_x[lane] = float(block % (TILE / SIDE) * SIDE), first_y[lane] = float(block / (TILE / SIDE) * SIDE);
    }
    const Floats right = x - first_x, left = right - float(SIDE - 1);
    const Floats below = y - first_y, above = below - float(SIDE - 1);
    const Floats edge_x = within(zero, left, right), edge_y = within(zero, above, below);
    const Floats along_y = within(slope_y * edge_x, above, below), along_x = within(slope_x * edge_y, left, right);
    const auto brightness = [&](Floats dx, Floats dy) {
      return s.peak + dx * (s.xx * dx + s.xy * dy) + s.yy * (dy * dy);
    };
    const Floats best = larger(brightness(edge_x, along_y), brightness(along_x, edge_y));
    blocks |= signs((Floats)(Ints)(best >= FAINTEST_LOG2 - SLACK)) << (v * LANES);
  }
  return blocks;
}

// Up to ROOM splats of a tile's list, and for each block a bit for each of them that touches it.
template <class Splat, int ROOM>
struct Batch {
  static_assert(ROOM % 16 == 0 && ROOM <= 64, "one word of bits");
  Splat splats[ROOM];
  uint64_t of_block[BLOCKS];
  int64_t pairs[ROOM];                        // their numbers in the order by splat
  int count;

  void fill(const Scene& scene, const Plan& plan, const Tile& tile, const int32_t* at, uint32_t open) {
    alignas(16) uint8_t low[ROOM] = {}, high[ROOM] = {};
    count = int(std::min<int64_t>(tile.end - at, ROOM));
    for (int j = 0; j < count; ++j) {
      if (at + j + AHEAD < tile.end) __builtin_prefetch(plan.records + at[j + AHEAD]);
      const Record& r = plan.records[at[j]];
      splats[j].read(scene, plan, tile, at[j]);
      pairs[j] = r.first_pair + (tile.y / TILE - r.tile_y) * r.tiles_x + tile.x / TILE - r.tile_x;
      const uint32_t blocks = touched(r, r.x - float(tile.x) - 0.5f, r.y - float(tile.y) - 0.5f) & open;
      low[j] = uint8_t(blocks), high[j] = uint8_t(blocks >> 8);
    }
    for (int block = 0; block < 8; ++block) {
      of_block[block] = column(low, block);
      of_block[8 + block] = column(high, block);
    }
  }

  // Bit `bit` of each byte.
  static uint64_t column(const uint8_t* bytes, int bit) {
    uint64_t bits = 0;
#if defined(__SSE2__)
    for (int k = 0; k < ROOM; k += 16) {
      const __m128i some = _mm_load_si128(reinterpret_cast<const __m128i*>(bytes + k));
      bits |= uint64_t(uint32_t(_mm_movemask_epi8(_mm_slli_epi16(some, 7 - bit)))) << k;
    }
#else
    for (int k = 0; k < ROOM; ++k) bits |= uint64_t((bytes[k] >> bit) & 1) << k;
#endif
    return bits;
  }
};

// How much one splat covers a block.
struct Cover {
  Floats full[VECTORS];                       // opacity * e^-s
  Floats alpha[VECTORS];                      // what of it counts
};

// Of pixels at x and y of the tile.
static inline Cover cover(const Near& s, Floats x, const Floats* y) {
  Cover c;
  const Floats dx = s.x - x, across = s.peak + (s.xx * dx) * dx, slant = s.xy * dx;
  for (int v = 0; v < VECTORS; ++v) {
    const Floats dy = s.y - y[v], q = across + dy * (slant + s.yy * dy);
    c.full[v] = power_of_two(q);
    c.alpha[v] = keep(q >= FAINTEST_LOG2, smaller(c.full[v], same(s.cap)));
  }
  return c;
}

// T after a splat; where that would let too little through, the splat is not drawn and T keeps a minus. Sets `weight`
// to the alpha times T that is drawn, and returns where it is.
static inline Ints pass(Floats& through, Floats alpha, Floats& weight) {
  const Floats taken = through * alpha, after = through - taken;
  const Ints open = after > FINISHED;
  weight = keep(open, taken);
  through = choose(open, after, (Floats)((Ints)through | INT32_MIN));
  return open;
}

static inline bool any_open(const Floats* through) {
  uint32_t closed = ~0u;
  for (int v = 0; v < VECTORS; ++v) closed &= signs(through[v]);
  return closed != (1u << LANES) - 1;
}

}  // namespace
}  // namespace sds3d
