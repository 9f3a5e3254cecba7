// Surfels as a tile sees them.
#pragma once
#include "splats_blocks.h"
#include "surfels.h"

namespace sds3d {
namespace {

// The places are less that of the tile's first pixel; the rest is that of `Facet` and `RunDirectory`.
struct Disc {
  float x, y, ux, uy, vx, vy, lean_x, lean_y, blur_x, blur_y, peak, cap;
  float feature[7];

  Disc(const Scene& scene, const Plan& plan, const Tile& tile, int32_t row) {
    const Facet& f = plan.facets[row];
    const float left = float(tile.x) + 0.5f, top = float(tile.y) + 0.5f;
    x = f.x - left, y = f.y - top, blur_x = f.blur_x - left, blur_y = f.blur_y - top;
    ux = f.ux, uy = f.uy, vx = f.vx, vy = f.vy, lean_x = f.lean_x, lean_y = f.lean_y, peak = f.peak;
    cap = plan.records[row].cap;
    read_features(scene, plan.records[row], row, feature);
  }

  struct Seen;
};

// Where the rays of a register of pixels meet a disc.
struct Hit {
  Floats dx, dy;                              // from where its centre lands to the pixel
  Floats clear;                               // 1 / w
  Floats u, v, squared;                       // ROOT (u, v), and the sum of their squares
  Floats blur_x, blur_y;                      // from the pixel to the blur
  Ints on_disc;                               // whether the disc shows, and not the blur
  Floats exponent;                            // s in log2

  Hit() = default;
  Hit(const Disc& s, Floats x, Floats y) {
    dx = x - s.x, dy = y - s.y;
    const Floats w = 1.0f - (s.lean_x * dx + s.lean_y * dy);
    clear = 1.0f / w;
    u = (s.ux * dx + s.uy * dy) * clear, v = (s.vx * dx + s.vy * dy) * clear;
    squared = u * u + v * v;
    blur_x = s.blur_x - x, blur_y = s.blur_y - y;
    const Floats blurred = LOG2_OF_E * (blur_x * blur_x + blur_y * blur_y);
    on_disc = (w > 0.0f) & (squared <= blurred);
    exponent = choose(on_disc, squared, blurred);
  }
};

// What is seen of a disc in a register of pixels.
struct Disc::Seen {
  Hit hit;
  Floats alpha;

  Seen(const Disc& s, int block, int part) {
    const int at = block * BLOCK + part * LANES;
    hit = Hit(s, load(GRID.x + at), load(GRID.y + at));
    const Floats q = s.peak - hit.exponent;
    alpha = keep(q >= FAINTEST_LOG2, smaller(power_of_two(q), same(s.cap)));
  }
};

}  // namespace
}  // namespace sds3d
