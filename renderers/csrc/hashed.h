// A field of hash tables with a small network behind it: what its stages hand to each other.
//
// Hashed crosses the C ABI; renderers/volumes/hash_kernels.py mirrors it field by field. Points are worked on in stretches, and
// within these in groups of LANES and blocks of BLOCK. Numbers of a stretch lie block by block: [blocks,rows,BLOCK].
#pragma once
#include <cstdint>

#include "lanes.h"

namespace sds3d {

constexpr int BLOCK = 64;                     // points that go through the network at once
constexpr int STRETCH = 128 * BLOCK;          // points whose features are near at the same time
constexpr int MOST_FEATURES = 32, MOST_NEURONS = 256;

struct Hashed {
  int32_t levels, neurons;      // 2 features for each level; both multiples of 4, at most MOST_*
  int32_t threads;
  float scale;                  // density is scale softplus(raw + edge + height exp(-fall |place|^2))
  float edge, height, fall;
  int64_t points;               // P
  int64_t size;                 // T, a power of two
  const int32_t* resolutions;   // [L] voxels along a side of the cube of half side 1
  const float* shares;          // [L] what the features of a level are multiplied by
  const float* places;          // [P,3]
  const float* tables;          // [L,T,2]
  const float* hidden;          // [H,F], with max(0, .) after it
  const float* out;             // [4,H], to raw density and raw red, green, blue
};

static inline int features(const Hashed& h) { return 2 * h.levels; }

// Where row `row` of group `group` is in numbers that lie block by block.
static inline int64_t place_of(int rows, int row, int group) {
  constexpr int groups = BLOCK / LANES;
  return (int64_t(group / groups) * rows + row) * BLOCK + group % groups * LANES;
}

// The places of a stretch, by coordinate; beyond its end they are 0.
struct Places {
  alignas(64) float along[3][STRETCH];
  int groups;

  void read(const float* places, int count) {
    groups = (count + LANES - 1) / LANES;
    for (int d = 0; d < 3; ++d) {
      for (int i = 0; i < count; ++i) along[d][i] = places[3 * i + d];
      for (int i = count; i < groups * LANES; ++i) along[d][i] = 0;
    }
  }
};

// Features of one level of a stretch.
void read_level(const Hashed& h, int level, const Places& places, float* into);

// Adds to the gradient of one table what `groups` groups pull at it. listed: which of the stretch they are.
void pull_level(const Hashed& h, int level, const Places& places, const int32_t* listed, int groups,
                const float* d_features, float* d_tables);

// The network behind the tables: what `count` points are, at most BLOCK, those from `at` on. Density and its derivative
// by raw density, and albedo, from their features.
void network_forward(const Hashed& h, const float* inputs, const Places& places, int at, int count, float* density,
                     float* rise, float* albedo);
// From derivatives by the raw density and colours [4,BLOCK] of a block to those by its features; adds to the gradients
// of the weights.
void network_back(const Hashed& h, const float* inputs, const float* d_raw, float* d_inputs, float* d_hidden,
                  float* d_out);

}  // namespace sds3d
