// What projecting Gaussians and projecting surfels share: splats, cameras, tiles, and sums of pairs.
#pragma once
#include <algorithm>
#include <cmath>

#include "lanes.h"
#include "splats.h"

namespace sds3d {
namespace {

constexpr float SHORTEST = 1e-12f;       // a quaternion is never divided by less

struct V3 {
  Floats x, y, z;
};

struct Rotation {
  Floats m[3][3];
};

inline Floats dot(const V3& a, const V3& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Floats dot(const float* a, const V3& b) { return a[0] * b.x + a[1] * b.y + a[2] * b.z; }

// Column `column` of the rows from `first`; rows past the end repeat the last.
inline Floats gather(const float* array, int width, int column, int first, int count) {
  Floats lanes;
  for (int lane = 0; lane < LANES; ++lane) lanes[lane] = array[int64_t(std::min(first + lane, count - 1)) * width + column];
  return lanes;
}

// One register of splats.
struct Turned {
  V3 mean, scale;
  Floats opacity, length;                  // length of the quaternion
  Floats w, x, y, z;                       // unit quaternion
  Rotation rotation;

  Turned(const Scene& scene, int first) {
    const auto read = [&](const float* array, int width, int column) {
      return gather(array, width, column, first, scene.count);
    };
    mean = {read(scene.means, 3, 0), read(scene.means, 3, 1), read(scene.means, 3, 2)};
    scale = {read(scene.scales, 3, 0), read(scene.scales, 3, 1), read(scene.scales, 3, 2)};
    opacity = read(scene.opacities, 1, 0);
    w = read(scene.quats, 4, 0), x = read(scene.quats, 4, 1), y = read(scene.quats, 4, 2), z = read(scene.quats, 4, 3);
    length = larger(root(w * w + x * x + y * y + z * z), same(SHORTEST));
    w /= length, x /= length, y /= length, z /= length;
    auto& m = rotation.m;
    m[0][0] = 1 - 2 * (y * y + z * z), m[0][1] = 2 * (x * y - w * z), m[0][2] = 2 * (x * z + w * y);
    m[1][0] = 2 * (x * y + w * z), m[1][1] = 1 - 2 * (x * x + z * z), m[1][2] = 2 * (y * z - w * x);
    m[2][0] = 2 * (x * z - w * y), m[2][1] = 2 * (y * z + w * x), m[2][2] = 1 - 2 * (x * x + y * y);
  }

  // From the gradient `d` of the rotation to that of the quaternion as it was given.
  void turn_back(const Floats d[3][3], Floats d_quat[4]) const {
    const Floats q[4] = {w, x, y, z};
    d_quat[0] = 2 * (x * (d[2][1] - d[1][2]) + y * (d[0][2] - d[2][0]) + z * (d[1][0] - d[0][1]));
    d_quat[1] = 2 * (-2 * x * (d[1][1] + d[2][2]) + y * (d[1][0] + d[0][1]) + z * (d[2][0] + d[0][2]) +
                     w * (d[2][1] - d[1][2]));
    d_quat[2] = 2 * (x * (d[1][0] + d[0][1]) - 2 * y * (d[0][0] + d[2][2]) + z * (d[2][1] + d[1][2]) +
                     w * (d[0][2] - d[2][0]));
    d_quat[3] = 2 * (x * (d[2][0] + d[0][2]) + y * (d[2][1] + d[1][2]) - 2 * z * (d[0][0] + d[1][1]) +
                     w * (d[1][0] - d[0][1]));
    const Floats along = q[0] * d_quat[0] + q[1] * d_quat[1] + q[2] * d_quat[2] + q[3] * d_quat[3];
    for (int k = 0; k < 4; ++k) d_quat[k] = (d_quat[k] - along * q[k]) / length;
  }
};

struct Lens {
  float world[3][3], offset[3];        // p = world * mean + offset is where a mean is before the camera
  float fx, fy, cx, cy;
  float left, right, top, bottom;      // clamps of x/z and y/z

  Lens(const Scene& scene, int view) {
    const float* pose = scene.viewmats + 16 * view;
    const float* k = scene.intrinsics + 9 * view;
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) world[i][j] = pose[4 * i + j];
      offset[i] = pose[4 * i + 3];
    }
    fx = k[0], fy = k[4], cx = k[2], cy = k[5];
    const float margin_x = 0.15f * scene.width / fx, margin_y = 0.15f * scene.height / fy;
    left = -(cx / fx + margin_x), right = (scene.width - cx) / fx + margin_x;
    top = -(cy / fy + margin_y), bottom = (scene.height - cy) / fy + margin_y;
  }
};

// First and number of the tiles that pixels with centres within `reach` of `centre` lie in; 0 for none.
inline void tiles_touched(float centre, float reach, int pixels, int16_t& first, int16_t& number) {
  const float low = std::max(std::ceil(centre - reach - 0.5f), 0.0f);
  const float high = std::min(std::floor(centre + reach - 0.5f), float(pixels - 1));
  const bool any = low <= high;
  first = any ? int16_t(int(low) / TILE) : 0;
  number = any ? int16_t(int(high) / TILE - int(low) / TILE + 1) : 0;
}

// Whether a row of `records` is drawn after another of the same picture.
inline bool comes_after(const Plan& plan, int32_t row, int32_t other) {
  const float depth = plan.records[row].depth, other_depth = plan.records[other].depth;
  return depth > other_depth || (depth == other_depth && row > other);
}

// Sums the pairs of one register of splats before one camera, of `width` sums each, FEWEST to MOST. Returns the lanes
// that have any.
template <int FEWEST, int MOST>
Ints sum_pairs(const Scene& scene, const Plan& plan, const Picture& picture, const int32_t* last_of_tile, int view,
               int first, int width, Floats* total) {
  const int lanes = std::min(LANES, scene.count - first), across = tiles_across(scene);
  last_of_tile += int64_t(view) * across * tiles_down(scene);
  float sums_of[MOST][LANES] = {};
  Ints drawn = {};
  for (int lane = 0; lane < lanes; ++lane) {
    const int32_t row = view * scene.count + first + lane;
    const Record& r = plan.records[row];
    const float* pair = picture.pair_sums + width * int64_t(r.first_pair);
    float sum[MOST] = {};
    for (int y = r.tile_y; y < r.tile_y + r.tiles_y; ++y)
      for (int x = r.tile_x; x < r.tile_x + r.tiles_x; ++x, pair += width) {
        const int32_t last = last_of_tile[y * across + x];
        if (last < 0 || comes_after(plan, row, last)) continue;
        drawn[lane] = -1;
        for (int i = 0; i < FEWEST; ++i) sum[i] += pair[i];
        for (int i = FEWEST; i < width; ++i) sum[i] += pair[i];
      }
    for (int i = 0; i < MOST; ++i) sums_of[i][lane] = sum[i];
  }
  for (int i = 0; i < MOST; ++i) total[i] = load(sums_of[i]);
  return drawn;
}

}  // namespace
}  // namespace sds3d
