// A grid of voxel corners, drawn: walk, interpolate, shade and composite in one go, and the way back.
//
// values [R,R,R,4]: raw density and raw red, green, blue, trilinear between corners; density = scale softplus(raw),
// colours are logistic(raw), and the normal is minus the gradient of the raw density, made unit length.
// Gradients are summed in the order of the samples whatever the number of threads: one thread adds each sample as it
// goes; several write the samples down first, and then each adds those of its own slab of the grid.
#include <cstring>

#include "composite.h"

namespace sds3d {
namespace {

// What one sample adds to the gradient of the grid.
struct Pull {
  int32_t slab, corner;        // x of its cell, and the number of its first corner
  float place[3];              // within the cell, 0..1
  float values[4];             // gradient of the interpolated values
  float slope[3];              // gradient of the gradient of the raw density, per voxel
};
static_assert(sizeof(Pull) == 48, "twelve words, as the caller allocates");

// Where LANES samples lie in the grid.
struct Places {
  alignas(32) int32_t cell[3][LANES];
  alignas(32) float within[3][LANES];

  Places(const Ray& ray, Floats t, int resolution) {
    const float half = 0.5f * (resolution - 1);
    for (int d = 0; d < 3; ++d) {
      Floats place = (ray.origin[d] + t * ray.direction[d]) * half + half;
      place = larger(smaller(place, same(2 * half)), Floats{});
      const Ints cells = whole(smaller(place, same(resolution - 1.5f)));
      const Floats rest = place - __builtin_convertvector(cells, Floats);
      std::memcpy(cell[d], &cells, sizeof cells);
      store(within[d], rest);
    }
  }

  int32_t corner(int lane, int resolution) const {
    return (cell[0][lane] * resolution + cell[1][lane]) * resolution + cell[2][lane];
  }
};

typedef float Eight __attribute__((vector_size(32)));
typedef float EightAnywhere __attribute__((vector_size(32), aligned(4), may_alias));

static inline Four four(const float* from) { return *reinterpret_cast<const FourAnywhere*>(from); }
static inline Eight eight(const float* from) { return *reinterpret_cast<const EightAnywhere*>(from); }
#if defined(SDS3D_SHUFFLES)
static inline Four low(Eight v) { return __builtin_shufflevector(v, v, 0, 1, 2, 3); }
static inline Four high(Eight v) { return __builtin_shufflevector(v, v, 4, 5, 6, 7); }
#else
static inline Four low(Eight v) { return Four{v[0], v[1], v[2], v[3]}; }
static inline Four high(Eight v) { return Four{v[4], v[5], v[6], v[7]}; }
#endif

// Raw values and (per voxel) slopes of the raw density at LANES places.
struct Raw {
  alignas(32) float values[4][LANES];
  alignas(32) float slope[3][LANES];

  Raw(const float* grid, const Places& places, int resolution, int count, bool slopes) {
    if (count < LANES) std::memset(this, 0, sizeof *this);
    const int64_t y = 4 * int64_t(resolution), x = y * resolution;
    for (int lane = 0; lane < count; ++lane) {
      const float* at = grid + 4 * int64_t(places.corner(lane, resolution));
      const float a = places.within[0][lane], b = places.within[1][lane], c = places.within[2][lane];
      // Both ends of a voxel's edge along z lie side by side.
      const Eight e0 = eight(at), e1 = eight(at + y), e2 = eight(at + x), e3 = eight(at + x + y);
      const Eight rise0 = e1 - e0, rise1 = e3 - e2;
      const Eight left = e0 + b * rise0, right = e2 + b * rise1;
      const Eight across = right - left, both = left + a * across;
      const Four near = low(both), climb = high(both) - near;
      const Four value = near + c * climb;
      for (int channel = 0; channel < 4; ++channel) values[channel][lane] = value[channel];
      if (slopes) {
        const Eight up = rise0 + a * (rise1 - rise0);
        slope[0][lane] = across[0] + c * (across[4] - across[0]);
        slope[1][lane] = up[0] + c * (up[4] - up[0]);
        slope[2][lane] = climb[0];
      }
    }
  }
};

// Samples as the composition takes them, with what the way back needs besides.
struct Active {
  Samples samples = {};
  Floats rise, shorter = {};   // derivative of softplus; 1 / length of the gradient

  Active(const Raw& raw, const Volume& v, int count) {
    samples.density = softplus(load(raw.values[0]), &rise) * v.scale * first(count);
    for (int c = 0; c < 3; ++c) samples.albedo[c] = logistic(load(raw.values[1 + c]));
    if (!v.normals) return;
    const float per_unit = 0.5f * (v.resolution - 1);
    Floats square = same(FLATTEST);
    for (int d = 0; d < 3; ++d) {
      const Floats slope = load(raw.slope[d]) * per_unit;
      square += slope * slope;
      samples.normal[d] = -slope;
    }
    shorter = 1.0f / root(square);
    for (int d = 0; d < 3; ++d) samples.normal[d] *= shorter;
  }
};

void draw_ray(const Volume& v, const float* grid, const Layers& out, int view, int64_t pixel) {
  Ray ray(v, view, pixel);
  Composite composite(v, ray);
  alignas(32) float distances[LANES] = {};
  int taken = 0;
  out.first[pixel] = 0;
  while (const int count = ray.next(distances)) {
    if (!taken) out.first[pixel] = ray.head;
    const Floats t = load(distances);
    taken += count;
    const Active active(Raw(grid, Places(ray, t, v.resolution), v.resolution, count, v.normals), v, count);
    if (!composite.take(active.samples, t)) break;
  }
  out.taken[pixel] = taken;
  composite.finish(out.layers + LAYERS * pixel);
}

// Where the pulls of a patch go: into a list, or straight into the gradient whenever a small list is full.
struct Pulls {
  Pull* begin;
  Pull* end;
  Pull* next;
  float* gradient;             // null: only collect
  int resolution;
  bool slopes;

  Pull* room();
  void flush();
};

// Adds samples to the corners of the planes x = low..high-1 of the gradient.
template <bool SLOPES>
__attribute__((noinline)) void scatter(const Pull* begin, const Pull* end, int resolution, int low, int high,
                                       float* gradient) {
  const int64_t y = 4 * int64_t(resolution), x = y * resolution;
  for (const Pull* p = begin; p < end; ++p) {
    const int first = std::max(low - p->slab, 0), last = std::min(high - p->slab, 2);
    const float b = p->place[1], c = p->place[2];
    const Four values = four(p->values);
    for (int i = first; i < last; ++i) {
      const float wa = i ? p->place[0] : 1 - p->place[0], sa = i ? p->slope[0] : -p->slope[0];
      float* at = gradient + 4 * int64_t(p->corner) + i * x;
      for (int j = 0; j < 2; ++j, at += y) {
        const float wb = j ? b : 1 - b, w = wa * wb;
        Four value = w * values;
        if (SLOPES) value[0] += sa * wb + wa * (j ? p->slope[1] : -p->slope[1]);
        Four far = c * value, near = value - far;
        if (SLOPES) {
          near[0] -= w * p->slope[2];
          far[0] += w * p->slope[2];
        }
        store_four(at, four(at) + near);
        store_four(at + 4, four(at + 4) + far);
      }
    }
  }
}

void Pulls::flush() {
  if (!gradient) return;
  (slopes ? scatter<true> : scatter<false>)(begin, next, resolution, 0, resolution, gradient);
  next = begin;
}

Pull* Pulls::room() {
  if (next == end) flush();
  return next < end ? next++ : nullptr;
}

void draw_ray_back(const Volume& v, const float* grid, const Layers& out, int view, int64_t pixel, Pulls& pulls) {
  if (!out.taken[pixel]) return;
  Ray ray(v, view, pixel);
  Composite composite(v, ray);
  composite.begin(out.layers + LAYERS * pixel, out.d_layers + LAYERS * pixel);
  alignas(32) float distances[LANES] = {};
  const float per_unit = 0.5f * (v.resolution - 1);
  int left = out.taken[pixel];
  ray.skip_to(out.first[pixel]);
  while (const int count = ray.next(distances, left)) {
    left -= count;
    const Floats t = load(distances);
    const Places places(ray, t, v.resolution);
    const Active active(Raw(grid, places, v.resolution, count, v.normals), v, count);
    Samples d = {};
    composite.take_back(active.samples, t, &d);
    alignas(32) float values[4][LANES], slope[3][LANES] = {};
    store(values[0], d.density * v.scale * active.rise);
    for (int c = 0; c < 3; ++c) {
      const Floats albedo = active.samples.albedo[c];
      store(values[1 + c], d.albedo[c] * albedo * (1.0f - albedo));
    }
    if (v.normals) {  // of -g / |g|: the part of the pull across the normal, shortened, and turned round
      Floats along = {};
      for (int k = 0; k < 3; ++k) along += d.normal[k] * active.samples.normal[k];
      for (int k = 0; k < 3; ++k)
        store(slope[k], (active.samples.normal[k] * along - d.normal[k]) * active.shorter * per_unit);
    }
    for (int lane = 0; lane < count; ++lane) {
      Pull* p = pulls.room();
      if (!p) return;
      p->slab = places.cell[0][lane];
      p->corner = places.corner(lane, v.resolution);
      for (int k = 0; k < 3; ++k) p->place[k] = places.within[k][lane], p->slope[k] = slope[k][lane];
      for (int c = 0; c < 4; ++c) p->values[c] = values[c][lane];
    }
  }
}

}  // namespace
}  // namespace sds3d

using namespace sds3d;

extern "C" {

// Fills layers and taken.
void sds3d_voxels_draw(const Volume* volume, const float* values, const Layers* out) {
  const Volume v = *volume;
  const int64_t count = patches(v);
#pragma omp parallel for schedule(dynamic, 4) num_threads(v.threads) if (v.threads > 1)
  for (int64_t patch = 0; patch < count; ++patch)
    each_pixel(v, patch, [&](int view, int64_t pixel) { draw_ray(v, values, *out, view, pixel); });
}

// Adds to gradient [R,R,R,4], given zeros. With more than one thread: pulls has room for all samples taken, 12 words
// each, and starts for one number per patch and one more. With one thread they may be null.
void sds3d_voxels_draw_back(const Volume* volume, const float* values, const Layers* out, void* pulls, int64_t* starts,
                            float* gradient) {
  const Volume v = *volume;
  const int64_t count = patches(v);
  if (v.threads <= 1) {
    Pull some[256];
    Pulls straight = {some, some + 256, some, gradient, v.resolution, v.normals != 0};
    for (int64_t patch = 0; patch < count; ++patch)
      each_pixel(v, patch, [&](int view, int64_t pixel) { draw_ray_back(v, values, *out, view, pixel, straight); });
    straight.flush();
    return;
  }
  Pull* all = static_cast<Pull*>(pulls);
  starts[0] = 0;
  for (int64_t patch = 0; patch < count; ++patch) {
    int64_t taken = 0;
    each_pixel(v, patch, [&](int, int64_t pixel) { taken += out->taken[pixel]; });
    starts[patch + 1] = starts[patch] + taken;
  }
  const int threads = v.threads, planes = v.resolution;
#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic, 4)
    for (int64_t patch = 0; patch < count; ++patch) {
      Pulls list = {all + starts[patch], all + starts[patch + 1], all + starts[patch], nullptr, v.resolution,
                    v.normals != 0};
      each_pixel(v, patch, [&](int view, int64_t pixel) { draw_ray_back(v, values, *out, view, pixel, list); });
      std::memset(static_cast<void*>(list.next), 0, sizeof(Pull) * size_t(list.end - list.next));
    }
    // More slabs than threads, as the middle of the grid has most of the samples.
#pragma omp for schedule(dynamic, 1)
    for (int slab = 0; slab < 4 * threads; ++slab)
      (v.normals ? scatter<true> : scatter<false>)(all, all + starts[count], planes, planes * slab / (4 * threads),
                                                   planes * (slab + 1) / (4 * threads), gradient);
  }
}

}  // extern "C"
