// Fields of hash tables, forward and back: stretch after stretch of points, each level by level and block by block.
//
// The gradients of the weights are summed over stretches, and these sums one after the other; those of the tables in
// the order of the points, each level by one thread. So the number of threads means nothing.

#include "hashed.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace sds3d {
namespace {

int stretches(const Hashed& h) { return int((h.points + STRETCH - 1) / STRETCH); }
int points_of(const Hashed& h, int64_t stretch) {
  return int(std::min<int64_t>(h.points - stretch * STRETCH, STRETCH));
}

void forward(const Hashed& h, int64_t stretch, Places* places, float* found, float* density, float* rise,
             float* albedo) {
  const int64_t first = stretch * STRETCH;
  const int count = points_of(h, stretch);
  places->read(h.places + 3 * first, count);
  for (int level = 0; level < h.levels; ++level) read_level(h, level, *places, found);
  for (int at = 0; at < count; at += BLOCK)
    network_forward(h, found + int64_t(features(h)) * at, *places, at, std::min(BLOCK, count - at),
                    density + first + at, rise ? rise + first + at : nullptr, albedo + 3 * (first + at));
}

// What the output of the field was, and the derivative of the loss by it.
struct Told {
  const float* features;       // [blocks,F,BLOCK]
  const float* rise;           // [P] of the density, by the raw density
  const float* albedo;         // [P,3]
  const float* d_density;      // [P]
  const float* d_albedo;       // [P,3]
};

// A stretch on the way back: first through the network, then to the tables.
struct Back {
  Places places;
  alignas(64) float d_raw[4][STRETCH];
  int32_t listed[STRETCH / LANES];  // groups with any gradient: there is none behind what stops a ray
  int groups;
  std::unique_ptr<float[]> d_features;
  std::vector<float> d_weights;

  explicit Back(const Hashed& h)
      : d_features(new float[int64_t(features(h)) * STRETCH]), d_weights(h.neurons * (features(h) + 4)) {}

  void through_network(const Hashed& h, const Told& told, int64_t stretch) {
    const int64_t first = stretch * STRETCH;
    const int count = points_of(h, stretch);
    places.read(h.places + 3 * first, count);
    activations_back(told, first, count);
    list();
    std::fill(d_weights.begin(), d_weights.end(), 0.0f);
    const int rows = features(h);
    alignas(64) float inputs[MOST_FEATURES][BLOCK], pulls[4][BLOCK];
    const float* from = told.features + first * rows;
    for (int at = 0; at < groups; at += BLOCK / LANES) {
      for (int i = 0; i < BLOCK / LANES; ++i) {
        const int to = i * LANES, group = at + i < groups ? listed[at + i] : -1;
        for (int row = 0; row < rows; ++row)
          store(inputs[row] + to, group < 0 ? Floats{} : load(from + place_of(rows, row, group)));
        for (int c = 0; c < 4; ++c) store(pulls[c] + to, group < 0 ? Floats{} : load(d_raw[c] + group * LANES));
      }
      network_back(h, inputs[0], pulls[0], d_features.get() + at * LANES * rows, d_weights.data(),
                   d_weights.data() + h.neurons * rows);
    }
  }

 private:
  void activations_back(const Told& told, int64_t first, int count) {
    for (int i = 0; i < count; ++i) d_raw[0][i] = told.rise[first + i] * told.d_density[first + i];
    for (int c = 0; c < 3; ++c)
      for (int i = 0; i < count; ++i) {
        const float albedo = told.albedo[3 * (first + i) + c];
        d_raw[1 + c][i] = albedo * (1.0f - albedo) * told.d_albedo[3 * (first + i) + c];
      }
    for (int c = 0; c < 4; ++c) std::fill(d_raw[c] + count, d_raw[c] + places.groups * LANES, 0.0f);
  }

  void list() {
    groups = 0;
    for (int group = 0; group < places.groups; ++group) {
      Ints any = {};
      for (int c = 0; c < 4; ++c) any |= load(d_raw[c] + group * LANES) != 0.0f;
      bool found = false;
      for (int lane = 0; lane < LANES; ++lane) found |= any[lane] != 0;
      listed[groups] = group;
      groups += found;
    }
  }
};

}  // namespace
}  // namespace sds3d

using namespace sds3d;

extern "C" {

// Points whose features lie together in one piece: those kept have room for a multiple of it.
int32_t sds3d_hashed_block() { return BLOCK; }

// Fills density [P] and albedo [P,3]; and, unless these are null, what the way back needs: features [blocks,F,BLOCK]
// and rise [P].
void sds3d_hashed(const Hashed* hashed, float* found, float* rise, float* density, float* albedo) {
  const Hashed h = *hashed;
  const int count = stretches(h);
#pragma omp parallel num_threads(h.threads) if (h.threads > 1)
  {
    const std::unique_ptr<Places> places(new Places);
    const std::unique_ptr<float[]> own(found ? nullptr : new float[int64_t(features(h)) * STRETCH]);
#pragma omp for schedule(dynamic, 1)
    for (int stretch = 0; stretch < count; ++stretch)
      forward(h, stretch, places.get(), found ? found + int64_t(features(h)) * STRETCH * stretch : own.get(), density,
              rise, albedo);
  }
}

// Adds to d_tables [L,T,2], d_hidden [H,F] and d_out [4,H], given zeros.
void sds3d_hashed_back(const Hashed* hashed, const float* found, const float* rise, const float* albedo,
                       const float* d_density, const float* d_albedo, float* d_tables, float* d_hidden, float* d_out) {
  const Hashed h = *hashed;
  const Told told = {found, rise, albedo, d_density, d_albedo};
  const int count = stretches(h), at_once = h.threads > 1 ? 2 * h.threads : 1;
  std::vector<std::unique_ptr<Back>> parts;
  for (int i = 0; i < std::min(at_once, count); ++i) parts.emplace_back(new Back(h));
  for (int first = 0; first < count; first += at_once) {
    const int some = std::min(at_once, count - first);
#pragma omp parallel for schedule(dynamic, 1) num_threads(h.threads) if (h.threads > 1)
    for (int i = 0; i < some; ++i) parts[i]->through_network(h, told, first + i);
#pragma omp parallel for schedule(dynamic, 1) num_threads(h.threads) if (h.threads > 1)
    for (int level = 0; level < h.levels; ++level)
      for (int i = 0; i < some; ++i) {
        const Back& part = *parts[i];
        pull_level(h, level, part.places, part.listed, part.groups, part.d_features.get(), d_tables);
      }
    for (int i = 0; i < some; ++i) {
      const float* from = parts[i]->d_weights.data();
      const int hidden = h.neurons * features(h);
      for (int k = 0; k < hidden; ++k) d_hidden[k] += from[k];
      for (int k = 0; k < 4 * h.neurons; ++k) d_out[k] += from[hidden + k];
    }
  }
}

}  // extern "C"
