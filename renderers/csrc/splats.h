// Gaussian splats, seen by several pinhole cameras: what the stages hand to each other.
//
// The three structs at the top cross the C ABI; renderers/splats/cpu_kernels.py mirrors them field by field. All arrays are
// dense, row-major and live in memory that the caller owns. Shapes: V cameras, N splats, H x W pixels, P pairs of
// (splat, tile). Poses are world-to-camera with OpenCV axes (x right, y down, z ahead).
#pragma once
#include <cstdint>
#include <cstring>

namespace sds3d {

constexpr int TILE = 16;                      // pixels on a side
constexpr float BLUR = 0.3f;                  // pixels^2 added to both variances (gsplat's eps2d)
constexpr float NEAR = 0.01f, FAR = 1e10f;    // distance along the axis that is drawn
constexpr float FAINTEST = 1.0f / 255.0f;     // an alpha below this is not drawn
constexpr float OPAQUE = 0.999f;              // an alpha is never above this
constexpr float FINISHED = 1e-4f;             // a pixel that would let less through takes no more splats
constexpr float ROOT = 0.849321800f;          // root of log2(e) / 2: (ROOT x)^2 is x^2 / 2 in log2

struct Scene {
  int32_t views, count, height, width;
  int32_t threads;
  int32_t colours_per_view;    // 0: colours are [N,3]; 1: [V,N,3]
  int32_t antialiased;         // 1: opacities shrink by what the blur adds to a splat's area
  int32_t surfels;             // 1: splats are discs across their third axis (surfels.h)
  const float* means;          // [N,3]
  const float* quats;          // [N,4], wxyz, any length
  const float* scales;         // [N,3], standard deviations
  const float* opacities;      // [N], 0..1
  const float* colours;
  const float* viewmats;       // [V,4,4]
  const float* intrinsics;     // [V,3,3], pixels
  const float* normals;        // [V,N,3], drawn like colours; or null
};

// A splat in one picture; of a surfel, an ellipse around all that shows of it. With dx, dy the way from the pixel's
// centre to (x, y), in pixels, log2(alpha) = peak - u^2 - v^2 for u = ux dx + uy dy and v = vy dy.
struct Record {
  float x, y, ux, uy, vy, peak;
  float colour[3], depth;
  float slope_x, slope_y;      // alpha is greatest along a row at dx = slope_x dy, along a column at dy = slope_y dx
  int32_t first_pair;          // its pairs are numbered row by row over its rectangle of tiles
  int16_t tile_x, tile_y, tiles_x, tiles_y;
  float cap;                   // largest alpha: min(OPAQUE, opacity)
};
static_assert(sizeof(Record) == 64, "one cache line");

struct Facet;

struct Plan {
  Record* records;             // [V,N]; only those with tiles_x * tiles_y > 0 are drawn
  int32_t* radii;              // [V,N], pixels, 0 where culled
  int32_t* pairs;              // [P], rows of `records` in drawing order, tile after tile
  int32_t* starts;             // [V * tiles + 1], where each tile begins in `pairs`
  Facet* facets;               // [V,N] of surfels, where drawn; else null
};

struct Picture {
  float* colour;               // [V,H,W,4]: red, green, blue and depth, each times alpha
  float* alpha;                // [V,H,W]
  float* normal;               // [V,H,W,3], times alpha; null without normals, as is all of theirs
  const float* d_colour;       // their gradients, for the way back
  const float* d_alpha;
  const float* d_normal;
  float* pair_sums;            // [P, NORMAL_X or, with normals, SUMS], scratch for the way back; surfels have others
  float* d_means;              // [N,3]; all below are written, not added to
  float* d_quats;              // [N,4]
  float* d_scales;             // [N,3]
  float* d_opacities;          // [N]
  float* d_colours;            // as `colours`
  float* d_normals;            // [V,N,3]
  float* d_means2d;            // [V,N,2], pixels
  float* d_means2d_absolute;   // the same, but sizes of the pixels' shares are added up; or null
  float* distortion;           // [V,H,W] of surfels; or null, as its gradient is then
  const float* d_distortion;
};

// What the way back sums over the pixels of one pair: the gradients of colour and depth; the moments
// 1, u, v, u^2, u v, v^2 of the gradient of the exponent s, where alpha = opacity * e^-s; the sizes of the
// gradients of log2(alpha) in x and y; the gradients of the normal.
enum Sums {
  RED, GREEN, BLUE, DEPTH, S, SU, SV, SUU, SUV, SVV, SIZE_X, SIZE_Y, NORMAL_X, NORMAL_Y, NORMAL_Z, SUMS = 16
};

// Splats of a picture are drawn in the order of this number: by depth and, where that is the same, by row.
static inline int64_t turn_of(const Record& r, int32_t row) {
  int32_t key;
  std::memcpy(&key, &r.depth, sizeof key);  // the bits of positive floats sort as the floats do
  return int64_t(key) << 32 | uint32_t(row);
}
static inline int tiles_across(const Scene& scene) { return (scene.width + TILE - 1) / TILE; }
static inline int tiles_down(const Scene& scene) { return (scene.height + TILE - 1) / TILE; }
static inline const float* colours_of(const Scene& scene, int view) {
  return scene.colours + (scene.colours_per_view ? int64_t(view) * scene.count * 3 : 0);
}

// 3D to 2D: fills `records` but for first_pair, and `radii`.
void project(const Scene& scene, const Plan& plan);
// Numbers the pairs; returns how many there are.
int64_t number_pairs(const Scene& scene, const Plan& plan);
// Fills `pairs` and `starts`, nearest splats first.
void sort_into_tiles(const Scene& scene, const Plan& plan);
void draw(const Scene& scene, const Plan& plan, const Picture& picture);
// From the gradients of the picture to `pair_sums`, of each tile only up to the turn `last_of_tile`, -1 for none.
void draw_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t* last_of_tile);
// From `pair_sums` to the gradients of the scene.
void project_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int64_t* last_of_tile);

}  // namespace sds3d
