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
  int number, found = 0;
  unsigned some;
  while (ray.next_bits(&number, &some)) {
    const int place = number - first, word = place / 64, shift = place % 64;
    if (place + LANES > 64 * marks.words) break;  // rounding, far from the origin
    bits[word] |= uint64_t(some) << shift;
    if (shift > 64 - LANES) bits[word + 1] |= uint64_t(some) >> (64 - shift);
    found += __builtin_popcount(some);
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

// The next LANES samples or, at the end of a ray, fewer and nothing behind them.
struct Next {
  const Found& found;
  const int64_t at;
  const int count;

  Samples samples(bool normals) const {
    Samples s = {};
    s.density = read(found.density, 1, 0);
    for (int c = 0; c < 3; ++c) s.albedo[c] = read(found.albedo, 3, c);
    for (int d = 0; normals && d < 3; ++d) s.normal[d] = read(found.normal, 3, d);
    return s;
  }

  Floats distances() const { return read(found.distances, 1, 0); }

  // Number `place` of the `size` numbers of each sample.
  Floats read(const float* numbers, int size, int place) const {
    const float* from = numbers + size * at + place;
    Floats lanes = {};
    if (count == LANES)
      for (int lane = 0; lane < LANES; ++lane) lanes[lane] = from[size * lane];
    else
      for (int lane = 0; lane < count; ++lane) lanes[lane] = from[size * lane];
    return lanes;
  }

  void write(Floats lanes, int size, int place, float* numbers) const {
    float* to = numbers + size * at + place;
    for (int lane = 0; lane < LANES; ++lane)
      if (lane < count) to[size * lane] = lanes[lane];
  }
};

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
        const Next next = {found, at, int(std::min<int64_t>(LANES, starts[pixel + 1] - at))};
        if (!composite.take(next.samples(v.normals), next.distances())) break;
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
        const Next next = {found, at, int(std::min<int64_t>(LANES, starts[pixel + 1] - at))};
        Samples d = {};
        composite.take_back(next.samples(v.normals), next.distances(), &d);
        next.write(d.density, 1, 0, d_density);
        for (int c = 0; c < 3; ++c) next.write(d.albedo[c], 3, c, d_albedo);
        for (int k = 0; v.normals && k < 3; ++k) next.write(d.normal[k], 3, k, d_normal);
      }
    });
}

}  // extern "C"
