// Values given at the corners of triangles, blended at pixels, and the way back to values and places.
#include <algorithm>
#include <cmath>

#include "mesh.h"

namespace sds3d {
namespace {

constexpr double NEEDLE = 1e-9;  // a triangle thinner than this, as a share of its extent, moves no corner

// Adds the gradient of the three weights at a pixel to the corners' places.
void back_to_places(const float* places, const int32_t* corner, double x, double y, const double* d_bary,
                    const float* bary, float* d_places) {
  double qx[3], qy[3], e[3], extent = 0;
  for (int k = 0; k < 3; ++k) {
    const float* place = places + 3 * int64_t(corner[k]);
    qx[k] = seen_from(place[0], place[2], x), qy[k] = seen_from(place[1], place[2], y);
    extent = std::max(extent, qx[k] * qx[k] + qy[k] * qy[k]);
  }
  for (int k = 0; k < 3; ++k) e[k] = qx[(k + 1) % 3] * qy[(k + 2) % 3] - qy[(k + 1) % 3] * qx[(k + 2) % 3];
  const double sum = e[0] + e[1] + e[2];
  if (!(std::fabs(sum) > NEEDLE * extent)) return;
  const double mean = d_bary[0] * bary[0] + d_bary[1] * bary[1] + d_bary[2] * bary[2];
  double d_e[3];
  for (int k = 0; k < 3; ++k) d_e[k] = (d_bary[k] - mean) / sum;
  for (int k = 0; k < 3; ++k) {
    const int a = (k + 1) % 3, b = (k + 2) % 3;  // e_b = q_k x q_a, e_a = q_b x q_k
    const double along = d_e[b] * qy[a] - d_e[a] * qy[b], down = d_e[a] * qx[b] - d_e[b] * qx[a];
    float* d = d_places + 3 * int64_t(corner[k]);
    d[0] += static_cast<float>(along);
    d[1] += static_cast<float>(down);
    d[2] -= static_cast<float>(along * x + down * y);
  }
}

}  // namespace

void blend(const Mesh& mesh, const Seen& seen, const Values& values) {
  const int64_t channels = values.channels;
#pragma omp parallel for collapse(2) num_threads(mesh.threads) if (mesh.threads > 1)
  for (int64_t v = 0; v < mesh.views; ++v)
    for (int64_t i = 0; i < mesh.height; ++i) {
      const float* from = values.values + (values.per_view ? v * values.count * channels : 0);
      for (int64_t p = (v * mesh.height + i) * mesh.width, end = p + mesh.width; p < end; ++p) {
        float* to = values.picture + p * channels;
        if (seen.face[p] < 0) {
          std::fill(to, to + channels, 0.0f);
          continue;
        }
        const int32_t* corner = values.corners + 3 * int64_t(seen.face[p]);
        const float *a = from + corner[0] * channels, *b = from + corner[1] * channels,
                    *c = from + corner[2] * channels;
        const float* weight = seen.bary + 3 * p;
        for (int64_t k = 0; k < channels; ++k) to[k] = weight[0] * a[k] + weight[1] * b[k] + weight[2] * c[k];
      }
    }
}

void blend_backward(const Mesh& mesh, const Seen& seen, const Values& values) {
  const int64_t channels = values.channels;
#pragma omp parallel for num_threads(mesh.threads) if (mesh.threads > 1)
  for (int64_t v = 0; v < mesh.views; ++v) {
    const float* from = values.values + (values.per_view ? v * values.count * channels : 0);
    float* d_values = values.d_values ? values.d_values + v * values.count * channels : nullptr;
    float* d_places = values.d_places ? values.d_places + 3 * v * mesh.points : nullptr;
    const float* places = mesh.places + 3 * v * mesh.points;
    for (int64_t i = 0; i < mesh.height; ++i)
      for (int64_t j = 0; j < mesh.width; ++j) {
        const int64_t p = (v * mesh.height + i) * mesh.width + j;
        if (seen.face[p] < 0) continue;
        const int32_t* corner = values.corners + 3 * int64_t(seen.face[p]);
        const float *g = values.d_picture + p * channels, *bary = seen.bary + 3 * p;
        double d_bary[3];
        for (int n = 0; n < 3; ++n) {
          if (d_values)
            for (int64_t k = 0; k < channels; ++k) d_values[corner[n] * channels + k] += bary[n] * g[k];
          float sum = 0;
          for (int64_t k = 0; k < channels; ++k) sum += g[k] * from[corner[n] * channels + k];
          d_bary[n] = sum;
        }
        if (d_places)
          back_to_places(places, mesh.corners + 3 * int64_t(seen.face[p]), j + 0.5, i + 0.5, d_bary, bary, d_places);
      }
  }
}

}  // namespace sds3d
