// What projecting Gaussians and projecting surfels share: splats, cameras, tiles, and sums of pairs.
#pragma once
#include <algorithm>
#include <cmath>

#define SDS3D_SIXTEEN
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

// The columns of the rows from `first`, of WIDTH numbers each; rows past the end repeat the last.
template <int WIDTH>
inline void read_rows(const float* array, int first, int count, Floats* columns) {
  alignas(64) float lanes[WIDTH][LANES];
  array += int64_t(first) * WIDTH;
  if (first + LANES > count) {
    for (int lane = 0; lane < LANES; ++lane)
      for (int c = 0; c < WIDTH; ++c) lanes[c][lane] = array[std::min(lane, count - 1 - first) * WIDTH + c];
  } else if constexpr (WIDTH % 4 == 0) {
    for (int lane = 0; lane < LANES; lane += 4)
      for (int c = 0; c < WIDTH; c += 4) {
        Four four[4];
        for (int k = 0; k < 4; ++k) four[k] = load_four(array + (lane + k) * WIDTH + c);
        transpose(four);
        for (int k = 0; k < 4; ++k) store_four(lanes[c + k] + lane, four[k]);
      }
  } else {
    for (int lane = 0; lane < LANES; ++lane)
      for (int c = 0; c < WIDTH; ++c) lanes[c][lane] = array[lane * WIDTH + c];
  }
  for (int c = 0; c < WIDTH; ++c) columns[c] = load(lanes[c]);
}

// The way back: to the rows from `first`, but none past the end.
template <int WIDTH>
inline void write_rows(float* array, int first, int count, const Floats* columns) {
  alignas(64) float lanes[WIDTH][LANES];
  for (int c = 0; c < WIDTH; ++c) store(lanes[c], columns[c]);
  array += int64_t(first) * WIDTH;
  if (first + LANES > count) {
    for (int lane = 0; lane < count - first; ++lane)
      for (int c = 0; c < WIDTH; ++c) array[lane * WIDTH + c] = lanes[c][lane];
  } else if constexpr (WIDTH % 4 == 0) {
    for (int lane = 0; lane < LANES; lane += 4)
      for (int c = 0; c < WIDTH; c += 4) {
        Four four[4];
        for (int k = 0; k < 4; ++k) four[k] = load_four(lanes[c + k] + lane);
        transpose(four);
        for (int k = 0; k < 4; ++k) store_four(array + (lane + k) * WIDTH + c, four[k]);
      }
  } else {
    for (int lane = 0; lane < LANES; ++lane)
      for (int c = 0; c < WIDTH; ++c) array[lane * WIDTH + c] = lanes[c][lane];
  }
}

// One register of splats.
struct Turned {
  V3 mean, scale;
  Floats opacity, length;                  // length of the quaternion
  Floats w, x, y, z;                       // unit quaternion
  Rotation rotation;

  Turned(const Scene& scene, int first) {
    Floats column[4];
    read_rows<3>(scene.means, first, scene.count, column);
    mean = {column[0], column[1], column[2]};
    read_rows<3>(scene.scales, first, scene.count, column);
    scale = {column[0], column[1], column[2]};
    read_rows<1>(scene.opacities, first, scene.count, &opacity);
    read_rows<4>(scene.quats, first, scene.count, column);
    w = column[0], x = column[1], y = column[2], z = column[3];
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

// Sums the pairs of one register of splats before one camera, of WIDTH sums each. Returns the lanes that have any.
template <int WIDTH>
Ints sum_pairs(const Scene& scene, const Plan& plan, const Picture& picture, const int64_t* last_of_tile, int view,
               int first, Floats* total) {
  const int lanes = std::min(LANES, scene.count - first), across = tiles_across(scene);
  last_of_tile += int64_t(view) * across * tiles_down(scene);
  alignas(64) float sums_of[LANES * WIDTH] = {};
  alignas(64) int32_t drawn[LANES] = {};
  for (int lane = 0; lane < lanes; ++lane) {
    const int32_t row = view * scene.count + first + lane;
    const Record& r = plan.records[row];
    const int64_t turn = turn_of(r, row);
    const float* pair = picture.pair_sums + WIDTH * int64_t(r.first_pair);
    const int64_t* last = last_of_tile + r.tile_y * across + r.tile_x;
    Four sum[WIDTH / 4] = {};
    int32_t any = 0;
    for (int left = r.tiles_x * r.tiles_y, x = r.tiles_x; left > 0; --left, pair += WIDTH) {
      const int32_t counts = -int32_t(turn <= *last);
      any |= counts;
      for (int k = 0; k < WIDTH / 4; ++k) sum[k] += keep_four(counts, load_four(pair + 4 * k));
      const bool end = --x == 0;         // of its row of tiles
      last += end ? across - r.tiles_x + 1 : 1;
      x = end ? r.tiles_x : x;
    }
    drawn[lane] = any;
    for (int k = 0; k < WIDTH / 4; ++k) store_four(sums_of + WIDTH * lane + 4 * k, sum[k]);
  }
  read_rows<WIDTH>(sums_of, 0, LANES, total);
  return (Ints)load(reinterpret_cast<float*>(drawn));
}

}  // namespace
}  // namespace sds3d
