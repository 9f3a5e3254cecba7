// Blending splats into pixels, and the way back; one tile at a time, both front to back.
//
// A pixel lets T through. Splat i of its list adds w_i = a_i T_i times its colour c_i, and T_{i+1} = T_i (1 - a_i)
// (Kerbl et al. 2023, equation 3). A pixel that has taken its last splat keeps -T, so that the sign says so.
// On the way back, with v the gradient of the pixel's colour and u that of its alpha,
//   dL/da_i = T_i (c_i . v) - R_i / (1 - a_i),   R_i = C . v - T_end u - sum over j <= i of w_j (c_j . v),
// so nothing but the running R has to be known from the forward pass.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "lanes.h"
#include "splats.h"

namespace sds3d {
namespace {

constexpr int STRIDE = TILE + LANES;   // rows are padded: a window of LANES pixels may start at any column
constexpr int PIXELS = TILE * STRIDE;
constexpr float FAINTEST_LOG2 = -7.9943534f;  // log2(1/255)
constexpr float BIG = 1e6f;

struct Tile {
  int view, x, y;                      // first pixel
  int columns, rows;                   // pixels of it that lie in the picture
  const int32_t* begin;
  const int32_t* end;
};

Tile tile_at(const Scene& scene, const Plan& plan, int64_t index) {
  const int across = tiles_across(scene), tiles = across * tiles_down(scene);
  const int view = int(index / tiles), place = int(index % tiles);
  const int x = place % across * TILE, y = place / across * TILE;
  return {view, x, y, std::min(TILE, scene.width - x), std::min(TILE, scene.height - y),
          plan.pairs + plan.starts[index], plan.pairs + plan.starts[index + 1]};
}

// The pixels of a tile that a splat may touch, and where its centre is in the tile.
struct Window {
  float x, y;
  int left, right, top, bottom;        // inclusive
};

Window window_of(const Record& r, const Tile& tile) {
  const float x = r.x - tile.x, y = r.y - tile.y;
  const auto whole = [](float edge) { return int(std::min(std::max(edge, -BIG), BIG)); };
  return {x, y,
          std::max(whole(std::ceil(x - r.reach_x - 0.5f)), 0),
          std::min(whole(std::floor(x + r.reach_x - 0.5f)), tile.columns - 1),
          std::max(whole(std::ceil(y - r.reach_y - 0.5f)), 0),
          std::min(whole(std::floor(y + r.reach_y - 0.5f)), tile.rows - 1)};
}

bool all_finished(const float* through) {
  Ints open = {};
  for (int i = 0; i < PIXELS; i += LANES) open |= (Ints)(load(through + i) > 0.0f);
  for (int lane = 0; lane < LANES; ++lane)
    if (open[lane]) return false;
  return true;
}

void open_pixels(const Tile& tile, float* through) {
  for (int i = 0; i < PIXELS; ++i) through[i] = -1.0f;
  for (int row = 0; row < tile.rows; ++row)
    for (int column = 0; column < tile.columns; ++column) through[row * STRIDE + column] = 1.0f;
}

void draw_tile(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  const Tile tile = tile_at(scene, plan, index);
  alignas(64) float through[PIXELS];
  alignas(64) float sums_of[4][PIXELS] = {};
  open_pixels(tile, through);
  for (const int32_t* at = tile.begin; at < tile.end; ++at) {
    if ((at - tile.begin) % 64 == 63 && all_finished(through)) break;
    if (at + 4 < tile.end) __builtin_prefetch(plan.records + at[4]);
    const Record& r = plan.records[*at];
    const Window window = window_of(r, tile);
    const Floats red = same(r.colour[0]), green = same(r.colour[1]), blue = same(r.colour[2]), depth = same(r.depth);
    const Floats cap = same(r.cap);
    for (int column = window.left; column <= window.right; column += LANES) {
      const Floats dx = window.x - 0.5f - column - counting();
      const Floats q0 = r.peak + r.xx * dx * dx, q1 = r.xy * dx;
      for (int row = window.top; row <= window.bottom; ++row) {
        const float dy = window.y - 0.5f - row;
        const int i = row * STRIDE + column;
        const Floats q = q0 + dy * (q1 + r.yy * dy);
        const Floats alpha = keep(q >= FAINTEST_LOG2, smaller(power_of_two(q), cap));
        const Floats before = load(through + i), after = before - before * alpha;
        const Ints open = after > FINISHED;
        const Floats weight = keep(open, before * alpha);
        store(through + i, choose(open, after, (Floats)((Ints)before | INT32_MIN)));
        store(sums_of[RED] + i, load(sums_of[RED] + i) + weight * red);
        store(sums_of[GREEN] + i, load(sums_of[GREEN] + i) + weight * green);
        store(sums_of[BLUE] + i, load(sums_of[BLUE] + i) + weight * blue);
        store(sums_of[DEPTH] + i, load(sums_of[DEPTH] + i) + weight * depth);
      }
    }
  }
  for (int row = 0; row < tile.rows; ++row)
    for (int column = 0; column < tile.columns; ++column) {
      const int64_t pixel = (int64_t(tile.view) * scene.height + tile.y + row) * scene.width + tile.x + column;
      const int i = row * STRIDE + column;
      for (int channel = 0; channel < 4; ++channel) picture.colour[4 * pixel + channel] = sums_of[channel][i];
      picture.alpha[pixel] = 1.0f - std::fabs(through[i]);
    }
}

struct Backward {
  alignas(64) float through[PIXELS];
  alignas(64) float rest[PIXELS];      // R of the header
  alignas(64) float d_colour[4][PIXELS];

  void load_gradients(const Scene& scene, const Picture& picture, const Tile& tile) {
    std::memset(rest, 0, sizeof rest);
    std::memset(d_colour, 0, sizeof d_colour);
    open_pixels(tile, through);
    for (int row = 0; row < tile.rows; ++row)
      for (int column = 0; column < tile.columns; ++column) {
        const int64_t pixel = (int64_t(tile.view) * scene.height + tile.y + row) * scene.width + tile.x + column;
        const int i = row * STRIDE + column;
        rest[i] = (picture.alpha[pixel] - 1.0f) * picture.d_alpha[pixel];
        for (int channel = 0; channel < 4; ++channel) {
          const float d = picture.d_colour[4 * pixel + channel];
          d_colour[channel][i] = d;
          rest[i] += d * picture.colour[4 * pixel + channel];
        }
      }
  }

  // Takes one splat; writes its sums over the pixels of the tile.
  void take(const Record& r, const Window& window, float* pair_sums) {
    const Floats cap = same(r.cap);
    Floats reds = {}, greens = {}, blues = {}, depths = {}, s = {}, sx = {}, sy = {}, sxx = {}, sxy = {}, syy = {};
    for (int column = window.left; column <= window.right; column += LANES) {
      const Floats dx = window.x - 0.5f - column - counting();
      const Floats q0 = r.peak + r.xx * dx * dx, q1 = r.xy * dx;
      Floats t0 = {}, t1 = {}, t2 = {};  // moments in dy of this window
      for (int row = window.top; row <= window.bottom; ++row) {
        const float dy = window.y - 0.5f - row;
        const int i = row * STRIDE + column;
        const Floats q = q0 + dy * (q1 + r.yy * dy);
        const Floats full = power_of_two(q);
        const Floats alpha = keep(q >= FAINTEST_LOG2, smaller(full, cap));
        const Floats before = load(through + i), after = before - before * alpha;
        const Ints open = after > FINISHED;
        const Floats weight = keep(open, before * alpha);
        store(through + i, choose(open, after, (Floats)((Ints)before | INT32_MIN)));
        const Floats d_red = load(d_colour[RED] + i), d_green = load(d_colour[GREEN] + i);
        const Floats d_blue = load(d_colour[BLUE] + i), d_depth = load(d_colour[DEPTH] + i);
        const Floats toward = r.colour[0] * d_red + r.colour[1] * d_green + r.colour[2] * d_blue + r.depth * d_depth;
        const Floats left = load(rest + i) - weight * toward;
        store(rest + i, left);
        reds += weight * d_red;
        greens += weight * d_green;
        blues += weight * d_blue;
        depths += weight * d_depth;
        const Floats d_alpha = before * toward - left / (1.0f - alpha);
        const Floats d_s = keep(open & (full <= OPAQUE), -(alpha * d_alpha));
        t0 += d_s;
        t1 += d_s * dy;
        t2 += d_s * (dy * dy);
      }
      s += t0;
      sx += t0 * dx;
      sxx += t0 * dx * dx;
      sy += t1;
      sxy += t1 * dx;
      syy += t2;
    }
    store_four(pair_sums + RED, sums(reds, greens, blues, depths));
    store_four(pair_sums + S, sums(s, sx, sy, sxx));
    store_four(pair_sums + SXY, sums(sxy, syy, syy, syy));
  }
};

// Where a pair is in the numbering by splat.
float* sums_of_pair(const Picture& picture, const Record& r, const Tile& tile) {
  const int place = (tile.y / TILE - r.tile_y) * r.tiles_x + tile.x / TILE - r.tile_x;
  return picture.pair_sums + SUMS * (int64_t(r.first_pair) + place);
}

void draw_tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  const Tile tile = tile_at(scene, plan, index);
  Backward backward;
  backward.load_gradients(scene, picture, tile);
  const int32_t* at = tile.begin;
  for (; at < tile.end; ++at) {
    if ((at - tile.begin) % 64 == 63 && all_finished(backward.through)) break;
    if (at + 4 < tile.end) __builtin_prefetch(plan.records + at[4]);
    const Record& r = plan.records[*at];
    backward.take(r, window_of(r, tile), sums_of_pair(picture, r, tile));
  }
  for (; at < tile.end; ++at) {
    float* unseen = sums_of_pair(picture, plan.records[*at], tile);
    std::fill(unseen, unseen + SUMS, 0.0f);
  }
}

}  // namespace

void draw(const Scene& scene, const Plan& plan, const Picture& picture) {
  const int64_t tiles = int64_t(scene.views) * tiles_across(scene) * tiles_down(scene);
#pragma omp parallel for schedule(dynamic) num_threads(scene.threads) if (scene.threads > 1)
  for (int64_t index = 0; index < tiles; ++index) draw_tile(scene, plan, picture, index);
}

void draw_backward(const Scene& scene, const Plan& plan, const Picture& picture) {
  const int64_t tiles = int64_t(scene.views) * tiles_across(scene) * tiles_down(scene);
#pragma omp parallel for schedule(dynamic) num_threads(scene.threads) if (scene.threads > 1)
  for (int64_t index = 0; index < tiles; ++index) draw_tile_backward(scene, plan, picture, index);
}

}  // namespace sds3d
