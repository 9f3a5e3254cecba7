// Gaussian splats, seen by several pinhole cameras: what the stages hand to each other.
//
// The three structs at the top cross the C ABI; renderers/splat_kernels.py mirrors them field by field. All arrays are
// dense, row-major and live in memory that the caller owns. Shapes: V cameras, N splats, H x W pixels, P pairs of
// (splat, tile). Poses are world-to-camera with OpenCV axes (x right, y down, z ahead).
#pragma once
#include <cstdint>

namespace sds3d {

constexpr int TILE = 16;                      // pixels on a side
constexpr float BLUR = 0.3f;                  // pixels^2 added to both variances (gsplat's eps2d)
constexpr float NEAR = 0.01f, FAR = 1e10f;    // distance along the axis that is drawn
constexpr float FAINTEST = 1.0f / 255.0f;     // an alpha below this is not drawn
constexpr float OPAQUE = 0.999f;              // an alpha is never above this
constexpr float FINISHED = 1e-4f;             // a pixel that would let less through takes no more splats

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

// A splat in one picture; of a surfel, an ellipse around all that shows of it. With dx, dy the way from the pixel's centre to (x, y), in pixels,
// log2(alpha) = peak + xx dx^2 + xy dx dy + yy dy^2.
struct Record {
  float x, y, xx, xy, yy, peak;
  float colour[3], depth;
  float reach_x, reach_y;      // half sizes of the box outside of which alpha < FAINTEST
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
  float* pair_sums;            // [P, sums_per_pair], scratch for the way back
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
// 1, dx, dy, dx^2, dx dy, dy^2 of the gradient of the exponent s, where alpha = opacity * e^-s; the sizes of the
// gradients of log2(alpha) in x and y; the gradients of the normal.
enum Sums { RED, GREEN, BLUE, DEPTH, S, SX, SY, SXX, SXY, SYY, SIZE_X, SIZE_Y, NORMAL_X, NORMAL_Y, NORMAL_Z, SUMS = 16 };

static inline int sums_per_pair(const Scene& scene) { return scene.normals ? SUMS : NORMAL_X; }  // of Gaussians
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
// From the gradients of the picture to `pair_sums`, of each tile only up to the row `last_of_tile` of its list.
void draw_backward(const Scene& scene, const Plan& plan, const Picture& picture, int32_t* last_of_tile);
// From `pair_sums` to the gradients of the scene.
void project_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int32_t* last_of_tile);

}  // namespace sds3d
