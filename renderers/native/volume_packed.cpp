// Volumes of any kind of field, in two steps with the field in between: the walk writes down where the samples of all
// rays are, one after the other, and the composition takes what the field says of them.

#include "composite.h"

namespace sds3d {
namespace {

// The samples of all rays, by their numbers from the first one in the ball.
struct Marks {
  int32_t words;               // for each ray, with room for a bit per sample
  int32_t* first;              // [V,H,W]
  uint64_t* bits;              // [V,H,W,words], zeros at the beginning
};

// Marks the samples of one ray; returns how many there are.
int32_t mark(const Volume& v, int view, int64_t pixel, const Marks& marks) {
  Ray ray(v, view, pixel);
  const int first = ray.begin();
  uint64_t* bits = marks.bits + marks.words * pixel;
  alignas(32) float distances[LANES];
  int numbers[LANES], found = 0;
  while (const int more = ray.next(distances, LANES, numbers))
    for (int lane = 0; lane < more; ++lane) {
      const int number = numbers[lane] - first;
      if (number >= 64 * marks.words) break;  // rounding, far from the origin
      bits[number / 64] |= uint64_t(1) << number % 64;
      ++found;
    }
  marks.first[pixel] = first;
  return found;
}

void write(const Volume& v, int view, int64_t pixel, const Marks& marks, float* points, float* distances) {
  const float *origin = v.origins + 3 * view, *direction = v.directions + 3 * pixel;
  for (int word = 0; word < marks.words; ++word)
    for (uint64_t left = marks.bits[marks.words * pixel + word]; left; left &= left - 1) {
      const int number = marks.first[pixel] + 64 * word + __builtin_ctzll(left);
      const float t = (float(number) + v.jitter[pixel]) * v.step;
      for (int d = 0; d < 3; ++d) *points++ = origin[d] + t * direction[d];
      *distances++ = t;
    }
}

// What a field says of P samples.
struct Found {
  const float* density;        // [P]
  const float* albedo;         // [P,3]
  const float* normal;         // [P,3], read only where normals are wanted
  const float* distances;      // [P]
};

Samples samples_at(const Volume& v, const Found& found, int64_t at, int count) {
  alignas(32) float lanes[7][LANES] = {};
  for (int lane = 0; lane < count; ++lane) {
    lanes[0][lane] = found.density[at + lane];
    for (int c = 0; c < 3; ++c) lanes[1 + c][lane] = found.albedo[3 * (at + lane) + c];
    if (v.normals)
      for (int d = 0; d < 3; ++d) lanes[4 + d][lane] = found.normal[3 * (at + lane) + d];
  }
  Samples s;
  s.density = load(lanes[0]);
  for (int c = 0; c < 3; ++c) s.albedo[c] = load(lanes[1 + c]), s.normal[c] = load(lanes[4 + c]);
  return s;
}

Floats distances_at(const Found& found, int64_t at, int count) {
  alignas(32) float lanes[LANES] = {};
  std::copy(found.distances + at, found.distances + at + count, lanes);
  return load(lanes);
}

}  // namespace
}  // namespace sds3d

using namespace sds3d;

extern "C" {

// Fills taken [V,H,W], the samples of each ray, and the marks.
void sds3d_volume_mark(const Volume* volume, const Marks* marks, int32_t* taken) {
  const Volume v = *volume;
  const int64_t count = patches(v);
#pragma omp parallel for schedule(dynamic, 4) num_threads(v.threads) if (v.threads > 1)
  for (int64_t patch = 0; patch < count; ++patch)
    each_pixel(v, patch, [&](int view, int64_t pixel) { taken[pixel] = mark(v, view, pixel, *marks); });
}

// Fills points [P,3] and distances [P] of the samples that are marked; those of ray i begin at starts[i].
void sds3d_volume_walk(const Volume* volume, const Marks* marks, const int64_t* starts, float* points,
                       float* distances) {
  const Volume v = *volume;
  const int64_t count = patches(v);
#pragma omp parallel for schedule(dynamic, 4) num_threads(v.threads) if (v.threads > 1)
  for (int64_t patch = 0; patch < count; ++patch)
    each_pixel(v, patch, [&](int view, int64_t pixel) {
      write(v, view, pixel, *marks, points + 3 * starts[pixel], distances + starts[pixel]);
    });
}

// Fills layers; starts [V,H,W] and one more.
void sds3d_volume_composite(const Volume* volume, const int64_t* starts, const float* density, const float* albedo,
                            const float* normal, const float* distances, float* layers) {
  const Volume v = *volume;
  const Found found = {density, albedo, normal, distances};
  const int64_t count = patches(v);
#pragma omp parallel for schedule(dynamic, 4) num_threads(v.threads) if (v.threads > 1)
  for (int64_t patch = 0; patch < count; ++patch)
    each_pixel(v, patch, [&](int view, int64_t pixel) {
      Ray ray(v, view, pixel);
      Composite composite(v, ray);
      for (int64_t at = starts[pixel]; at < starts[pixel + 1]; at += LANES) {
        const int some = int(std::min<int64_t>(LANES, starts[pixel + 1] - at));
        if (!composite.take(samples_at(v, found, at, some), distances_at(found, at, some))) break;
      }
      composite.finish(layers + LAYERS * pixel);
    });
}

// Writes the gradients, given zeros, of all samples that are seen.
void sds3d_volume_composite_back(const Volume* volume, const int64_t* starts, const float* density,
                                 const float* albedo, const float* normal, const float* distances,
                                 const float* layers, const float* d_layers, float* d_density, float* d_albedo,
                                 float* d_normal) {
  const Volume v = *volume;
  const Found found = {density, albedo, normal, distances};
  const int64_t count = patches(v);
#pragma omp parallel for schedule(dynamic, 4) num_threads(v.threads) if (v.threads > 1)
  for (int64_t patch = 0; patch < count; ++patch)
    each_pixel(v, patch, [&](int view, int64_t pixel) {
      Ray ray(v, view, pixel);
      Composite composite(v, ray);
      composite.begin(layers + LAYERS * pixel, d_layers + LAYERS * pixel);
      for (int64_t at = starts[pixel]; at < starts[pixel + 1] && composite.open(); at += LANES) {
        const int some = int(std::min<int64_t>(LANES, starts[pixel + 1] - at));
        Samples d = {};
        composite.take_back(samples_at(v, found, at, some), distances_at(found, at, some), &d);
        for (int lane = 0; lane < some; ++lane) {
          d_density[at + lane] = d.density[lane];
          for (int c = 0; c < 3; ++c) d_albedo[3 * (at + lane) + c] = d.albedo[c][lane];
          if (v.normals)
            for (int k = 0; k < 3; ++k) d_normal[3 * (at + lane) + k] = d.normal[k][lane];
        }
      }
    });
}

}  // extern "C"
