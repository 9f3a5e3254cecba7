// Volumes seen along rays: what the stages hand to each other, and the walk along one ray.
//
// Volume and Layers cross the C ABI; renderers/volumes/cpu_kernels.py mirrors them field by field. All arrays are dense,
// row-major and live in memory that the caller owns. Shapes: V views, H x W pixels, G cells and R voxel corners along
// a side, P samples. The content is a ball of radius 1 around the origin, in a cube of half side 1.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "lanes.h"

namespace sds3d {

constexpr float EXHAUSTED = 1e-4f;            // a ray that lets less than this through takes no more samples
constexpr float FLATTEST = 1e-6f;             // added to the squared length of a gradient that is made a normal
constexpr float FARTHEST = 1e5f;              // a ball that begins farther away than this is not seen
constexpr float LONGEST = 2.5f;               // no ray of unit direction is in the ball for longer
constexpr int PATCH = 8;                      // pixels along a side of what one thread takes at a time

// What is seen of a ray, LAYERS floats: colour, alpha, and sums of weight times distance, normal, and the square of
// how far the normal faces away; last the spread of the weights along the ray.
enum Layer { COLOUR = 0, ALPHA = 3, REACH = 4, NORMAL = 5, AWAY = 8, SPREAD = 9, LAYERS = 10 };
enum Shade { ALBEDO = 0, TEXTURELESS = 1, LAMBERTIAN = 2 };

struct Volume {
  int32_t views, height, width, threads;
  int32_t resolution;          // R
  int32_t cells;               // G
  int32_t normals;             // 0: no normals, and so no light
  int32_t spread;              // 0: the last layer stays 0
  float step;                  // between two samples of a ray
  float scale;                 // density is this times softplus
  float ambient;               // share of the light that comes from everywhere
  float radius;                // of a ball around the origin that holds all cells where something is, at most 1
  const float* origins;        // [V,3]
  const float* directions;     // [V,H,W,3], unit
  const float* jitter;         // [V,H,W], 0..1: the samples are at (i + jitter) step for whole i
  const uint8_t* empty;        // [G,G,G]: 0 where something is, else how many cells away the next such cell is
  const int32_t* shades;       // [V]
  const float* lights;         // [V,3]
};

struct Layers {
  float* layers;               // [V,H,W,LAYERS]
  int32_t* taken;              // [V,H,W] samples of each ray
  int32_t* first;              // [V,H,W] number of the first of them
  const float* d_layers;
};

static inline int patches_across(const Volume& v) { return (v.width + PATCH - 1) / PATCH; }
static inline int patches_down(const Volume& v) { return (v.height + PATCH - 1) / PATCH; }
static inline int64_t patches(const Volume& v) { return int64_t(v.views) * patches_across(v) * patches_down(v); }

// Calls visit(view, pixel) for the pixels of one patch, row by row; `pixel` counts over all views.
template <class Visit>
static inline void each_pixel(const Volume& v, int64_t patch, Visit visit) {
  const int across = patches_across(v), per_view = across * patches_down(v);
  const int view = int(patch / per_view), place = int(patch % per_view);
  const int x = place % across * PATCH, y = place / across * PATCH;
  for (int row = y; row < std::min(y + PATCH, int(v.height)); ++row)
    for (int column = x; column < std::min(x + PATCH, int(v.width)); ++column)
      visit(view, (int64_t(view) * v.height + row) * v.width + column);
}

static inline Ints whole(Floats x) { return __builtin_convertvector(x, Ints); }

// One ray through the ball, and its samples in cells where something is, nearest first.
struct Ray {
  const Volume& volume;
  const int shade;
  float origin[3], direction[3], light[3];

  Ray(const Volume& v, int view, int64_t pixel) : volume(v), shade(v.normals ? v.shades[view] : int(ALBEDO)) {
    float middle = 0, square = -v.radius * v.radius;
    for (int d = 0; d < 3; ++d) {
      origin[d] = v.origins[3 * view + d];
      direction[d] = v.directions[3 * pixel + d];
      light[d] = v.lights[3 * view + d];
      middle -= origin[d] * direction[d];
      square += origin[d] * origin[d];
      const float half = 0.5f * v.cells;
      place[d] = origin[d] * half + half;
      rate[d] = direction[d] * half;
      slow[d] = 1.0f / (std::fabs(rate[d]) < 1e-9f ? 1e-9f : rate[d]);
    }
    jitter = v.jitter[pixel];
    per_step = 1.0f / v.step;
    const float inside = middle * middle - square;
    if (!(inside > 0)) return;
    const float half = std::sqrt(inside), from = std::max(middle - half, 0.0f);
    const float until = std::min(middle + half, from + LONGEST);
    if (!(until > from && from < FARTHEST)) return;
    at = int(std::ceil(from * per_step - jitter));
    end = int(std::floor(until * per_step - jitter)) + 1;
  }

  int head = 0;                // number of the first sample of the last `next`

  // Goes to the sample of this number.
  void skip_to(int number) { at = number; }

  // The number of the first sample in the ball, before any is taken.
  int begin() const { return at; }

  // The distances of the next samples, at most LANES or `most`; returns how many.
  int next(float* distances, int most = LANES) {
    const int cells = volume.cells;
    const uint8_t* empty = volume.empty;
    const float step = volume.step;
    const int wanted = std::min(most, LANES);
    int count = 0, now = at;
    while (now < end && count < wanted) {
      const float t = (float(now) + jitter) * step;
      int cell[3];
      for (int d = 0; d < 3; ++d) cell[d] = std::min(std::max(int(place[d] + t * rate[d]), 0), cells - 1);
      const int free = empty[(cell[0] * cells + cell[1]) * cells + cell[2]];
      if (free == 0) {
        head = count ? head : now;
        distances[count++] = t;
        ++now;
      } else {
        now = std::max(now + 1, behind(cell, free));
      }
    }
    at = now;
    return count;
  }

  // Which of LANES numbers from `number` on are samples, a bit for each; goes on behind them. The ray is over if there
  // is no number: then false.
  bool next_bits(int* number, unsigned* bits) {
    if (at >= end) return false;
    const int cells = volume.cells, last = std::min(LANES, end - at) - 1;
    const Floats t = (float(at) + counting() + jitter) * volume.step;
    alignas(32) int32_t cell[3][LANES];
    for (int d = 0; d < 3; ++d) {
      const Floats along = larger(smaller(place[d] + t * rate[d], same(cells - 0.5f)), Floats{});
      *reinterpret_cast<Ints*>(cell[d]) = whole(along);
    }
    int free = 0;
    *number = at;
    *bits = 0;
    for (int lane = 0; lane <= last; ++lane) {
      free = volume.empty[(cell[0][lane] * cells + cell[1][lane]) * cells + cell[2][lane]];
      *bits |= unsigned(free == 0) << lane;
    }
    const int corner[3] = {cell[0][last], cell[1][last], cell[2][last]};
    at = free ? std::max(at + LANES, behind(corner, free)) : at + LANES;
    return true;
  }

 private:
  // The number of the first sample behind the box of cells that are known to be empty, `free` around a cell.
  int behind(const int cell[3], int free) const {
    float leave = FARTHEST + 4.0f;
    for (int d = 0; d < 3; ++d) {
      const int edge = rate[d] > 0 ? cell[d] + free : cell[d] - free + 1;
      leave = std::min(leave, (float(edge) - place[d]) * slow[d]);
    }
    return std::min(int(std::ceil(leave * per_step - jitter)), end);
  }

  float place[3], rate[3], slow[3];  // in cells: where the ray begins, how it goes, and 1 / that
  float jitter, per_step;
  int at = 0, end = 0;
};

}  // namespace sds3d
