// Blocks of 4 x 4 pixels, sixteen to a tile: what the drawing of splats and its way back walk over.
//
// The list of a tile is taken a batch at a time: first, for each splat, which blocks it touches at all; then splat by
// splat only those. What is known of the pixels lies block by block.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>

#define SDS3D_SIXTEEN
#include "lanes.h"
#include "splats.h"

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

constexpr int BATCH = 64;
constexpr int AHEAD = 12;                     // records are asked for before they are needed

// Where the pixels of a tile lie in it, those of its first block first, and the first pixels of its blocks.
struct Grid {
  alignas(64) float x[PIXELS] = {}, y[PIXELS] = {}, left[BLOCKS] = {}, top[BLOCKS] = {};

  constexpr Grid() {
    for (int block = 0; block < BLOCKS; ++block) {
      left[block] = float(block % (TILE / SIDE) * SIDE), top[block] = float(block / (TILE / SIDE) * SIDE);
      for (int k = 0; k < BLOCK; ++k)
        x[block * BLOCK + k] = left[block] + float(k % SIDE), y[block * BLOCK + k] = top[block] + float(k / SIDE);
    }
  }
};
constexpr Grid GRID;

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

  // Calls four(place in the arrays of a tile, row-major pixel in the pictures) for the first of four pixels of a block
  // that lie side by side, where all are in the picture, and else one(place, pixel) for each that is.
  template <class Four, class One>
  void each_pixel(const Scene& scene, Four four, One one) const {
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < columns; column += SIDE) {
        const int place = (row / SIDE * (TILE / SIDE) + column / SIDE) * BLOCK + row % SIDE * SIDE;
        const int64_t pixel = (int64_t(view) * scene.height + y + row) * scene.width + x + column;
        if (column + SIDE <= columns) four(place, pixel);
        else for (int k = 0; k < columns - column; ++k) one(place + k, pixel + k);
      }
  }

  // Sets T to 1 where a pixel is in the picture, else to -1. Returns the blocks that have some.
  uint32_t open(float* through) const {
    uint32_t blocks = 0;
    for (int block = 0; block < BLOCKS; ++block)
      blocks |= uint32_t(GRID.left[block] < float(columns) && GRID.top[block] < float(rows)) << block;
    for (int at = 0; at < PIXELS; at += LANES) {
      const Ints inside = (load(GRID.x + at) < float(columns)) & (load(GRID.y + at) < float(rows));
      store(through + at, choose(inside, same(1.0f), same(-1.0f)));
    }
    return blocks;
  }
};

// Calls draw(index) for every tile of every picture.
template <class Draw>
void each_tile(const Scene& scene, Draw draw) {
  const int64_t tiles = int64_t(scene.views) * tiles_across(scene) * tiles_down(scene);
#pragma omp parallel for schedule(dynamic) num_threads(scene.threads) if (scene.threads > 1)
  for (int64_t index = 0; index < tiles; ++index) draw(index);
}

// The blocks of a tile where a splat may not be too faint, a bit each. Along an edge of a block, log2(alpha) is a
// parabola; it is greatest in the block at the centre of the splat, or else on one of the two edges that face it.
static inline uint32_t touched(const Record& s, const Tile& tile) {
  const float x = s.x - float(tile.x) - 0.5f, y = s.y - float(tile.y) - 0.5f;
  const Floats zero = {};
  const auto within = [](Floats value, Floats low, Floats high) { return smaller(larger(value, low), high); };
  uint32_t blocks = 0;
  for (int first = 0; first < BLOCKS; first += LANES) {
    const Floats right = x - load(GRID.left + first), left = right - float(SIDE - 1);
    const Floats down = y - load(GRID.top + first), up = down - float(SIDE - 1);
    const Floats edge_x = within(zero, left, right), edge_y = within(zero, up, down);
    const Floats along_y = within(s.slope_y * edge_x, up, down);
    const Floats along_x = within(s.slope_x * edge_y, left, right);
    const auto brightness = [&](Floats dx, Floats dy) {
      const Floats u = s.ux * dx + s.uy * dy, v = s.vy * dy;
      return s.peak - u * u - v * v;
    };
    const Floats best = larger(brightness(edge_x, along_y), brightness(along_x, edge_y));
    blocks |= above(best, FAINTEST_LOG2 - SLACK) << first;
  }
  return blocks;
}

// Calls take(row of `records`, blocks that the splat may touch) for the splats of a tile, nearest first, as long as a
// block is open; `open` starts with those that have pixels, and `add` removes those that are finished. Returns the
// last row that was taken, -1 for none.
template <class Take>
int32_t each_splat(const Plan& plan, const Tile& tile, uint32_t& open, Take take) {
  uint16_t blocks[BATCH];
  int32_t last = -1;
  for (const int32_t* at = tile.begin; at < tile.end; at += BATCH) {
    const int count = int(std::min<int64_t>(tile.end - at, BATCH));
    for (int j = 0; j < count; ++j) {
      if (at + j + AHEAD < tile.end) __builtin_prefetch(plan.records + at[j + AHEAD]);
      blocks[j] = uint16_t(touched(plan.records[at[j]], tile));
    }
    for (int j = 0; j < count; ++j) {
      if (!open) return last;
      last = at[j];
      take(last, blocks[j] & open);
    }
  }
  return last;
}

// What is drawn of a splat, besides alpha: red, green, blue, depth, normal.
static inline void read_features(const Scene& scene, const Record& r, int32_t row, float* feature) {
  for (int k = 0; k < 3; ++k) feature[k] = r.colour[k];
  feature[3] = r.depth;
  for (int k = 0; k < 3; ++k) feature[4 + k] = scene.normals ? scene.normals[3 * int64_t(row) + k] : 0.0f;
}

// A Gaussian as a tile sees it. Of a pixel, u and v of `RunDirectory` are those of its block's first pixel less what it is
// away from that: the same for all blocks.
struct Near {
  alignas(64) float block_u[BLOCKS], block_v[BLOCKS];
  Floats away_u[VECTORS], away_v[VECTORS];
  float peak, cap, ux, uy, vy;
  float feature[7];

  Near(const Scene& scene, const Plan& plan, const Tile& tile, int32_t row) {
    const Record& r = plan.records[row];
    const float x = r.x - float(tile.x) - 0.5f, y = r.y - float(tile.y) - 0.5f;
    for (int at = 0; at < BLOCKS; at += LANES) {
      const Floats dx = x - load(GRID.left + at), dy = y - load(GRID.top + at);
      store(block_u + at, r.ux * dx + r.uy * dy), store(block_v + at, r.vy * dy);
    }
    for (int v = 0; v < VECTORS; ++v) {
      const Floats dx = load(GRID.x + v * LANES), dy = load(GRID.y + v * LANES);
      away_u[v] = r.ux * dx + r.uy * dy, away_v[v] = r.vy * dy;
    }
    peak = r.peak, cap = r.cap, ux = r.ux, uy = r.uy, vy = r.vy;
    read_features(scene, r, row, feature);
  }

  // What is seen of it in a register of pixels.
  struct Seen {
    Floats u, v, alpha;

    Seen(const Near& s, int block, int part) {
      u = s.block_u[block] - s.away_u[part], v = s.block_v[block] - s.away_v[part];
      const Floats q = s.peak - u * u - v * v;
      alpha = keep(q >= FAINTEST_LOG2, smaller(power_of_two(q), same(s.cap)));
    }
  };
};

// T before and after a splat. Where it would let too little through, the splat is not drawn, nor are those behind it: T
// goes on to fall.
struct Passing {
  Floats before, after, weight;               // weight: the alpha times T that is drawn
  Ints drawn;

  Passing(float* through, Floats alpha) {
    before = load(through);
    const Floats taken = before * alpha;
    after = before - taken;
    drawn = after > FINISHED;
    weight = keep(drawn, taken);
    store(through, after);
  }
};

}  // namespace
}  // namespace sds3d
