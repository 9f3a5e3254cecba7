// Features of points from hash tables at several resolutions (Mueller et al. 2022), and the way back to the tables.
//
// tables [levels, size, 2], size a power of two. Level l is a grid of resolutions[l] voxels along a side of the cube of
// half side 1; where its corners fit into the table each has an entry of its own, x fastest, else they share entries by
// the hash x ^ 2654435761 y ^ 805459861 z. features [2 levels, P].
// Gradients are summed in the order of the points; each level by one thread, so the number of threads means nothing.

#include <algorithm>
#include <cstdint>

#include "lanes.h"

namespace sds3d {
namespace {

constexpr int64_t STRETCH = 4096;

typedef uint32_t Whole __attribute__((vector_size(4 * LANES)));
typedef float Two __attribute__((vector_size(8)));
typedef float TwoAnywhere __attribute__((vector_size(8), aligned(4), may_alias));

// The entries and weights of the eight corners around LANES points, at one level.
struct Corners {
  alignas(32) uint32_t entry[8][LANES];
  alignas(32) float weight[8][LANES];

  Corners(const float* points, int count, int resolution, uint32_t size) {
    alignas(32) float lanes[3][LANES] = {};
    for (int lane = 0; lane < count; ++lane)
      for (int d = 0; d < 3; ++d) lanes[d][lane] = points[3 * lane + d];
    Whole low[3][2];
    Floats share[3][2];
    const float half = 0.5f * resolution;
    const bool own = uint64_t(resolution + 1) * (resolution + 1) * (resolution + 1) <= size;
    const uint32_t side = uint32_t(resolution) + 1;
    const uint32_t y = own ? side : 2654435761u, z = own ? side * side : 805459861u;
    for (int d = 0; d < 3; ++d) {
      const Floats place = larger(smaller(load(lanes[d]) * half + half, same(float(resolution))), Floats{});
      const Ints cell = __builtin_convertvector(smaller(place, same(resolution - 0.5f)), Ints);
      share[d][1] = place - __builtin_convertvector(cell, Floats);
      share[d][0] = 1.0f - share[d][1];
      low[d][0] = (Whole)cell * (d == 0 ? 1u : d == 1 ? y : z);
      low[d][1] = low[d][0] + (d == 0 ? 1u : d == 1 ? y : z);
    }
    for (int k = 0; k < 2; ++k)
      for (int j = 0; j < 2; ++j) {
        const Whole yz = own ? low[1][j] + low[2][k] : low[1][j] ^ low[2][k];
        const Floats share_yz = share[1][j] * share[2][k];
        for (int i = 0; i < 2; ++i) {
          const int corner = 4 * k + 2 * j + i;
          *reinterpret_cast<Whole*>(entry[corner]) = (own ? low[0][i] + yz : low[0][i] ^ yz) & (size - 1);
          store(weight[corner], share[0][i] * share_yz);
        }
      }
  }
};

}  // namespace
}  // namespace sds3d

using namespace sds3d;

extern "C" {

// Fills features. Level by level for a stretch of points, so that one table at a time has to be near.
void sds3d_hash_encode(const float* points, int64_t count, const float* tables, int32_t levels, int64_t size,
                       const int32_t* resolutions, int32_t threads, float* features) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t stretch = 0; stretch < (count + STRETCH - 1) / STRETCH; ++stretch)
    for (int level = 0; level < levels; ++level) {
      const float* table = tables + 2 * size * level;
      const int64_t end = std::min(count, (stretch + 1) * STRETCH);
      for (int64_t at = stretch * STRETCH; at < end; at += LANES) {
        const int some = int(std::min<int64_t>(LANES, end - at));
        const Corners corners(points + 3 * at, some, resolutions[level], uint32_t(size));
        float* to = features + 2 * level * count + at;
        for (int lane = 0; lane < some; ++lane) {
          Two sum = {};
          for (int corner = 0; corner < 8; ++corner)
            sum += corners.weight[corner][lane] *
                   *reinterpret_cast<const TwoAnywhere*>(table + 2 * size_t(corners.entry[corner][lane]));
          to[lane] = sum[0];
          to[count + lane] = sum[1];
        }
      }
    }
}

// Adds to d_tables, given zeros.
void sds3d_hash_encode_back(const float* points, int64_t count, const float* d_features, int32_t levels, int64_t size,
                            const int32_t* resolutions, int32_t threads, float* d_tables) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int level = 0; level < levels; ++level) {
    float* table = d_tables + 2 * size * level;
    for (int64_t at = 0; at < count; at += LANES) {
      const int some = int(std::min<int64_t>(LANES, count - at));
      const Corners corners(points + 3 * at, some, resolutions[level], uint32_t(size));
      const float* from = d_features + 2 * level * count + at;
      for (int lane = 0; lane < some; ++lane) {
        const Two d = {from[lane], from[count + lane]};
        if (d[0] == 0 && d[1] == 0) continue;  // behind what stops its ray
        for (int corner = 0; corner < 8; ++corner) {
          TwoAnywhere* to = reinterpret_cast<TwoAnywhere*>(table + 2 * size_t(corners.entry[corner][lane]));
          *to = *to + corners.weight[corner][lane] * d;
        }
      }
    }
  }
}

}  // extern "C"
