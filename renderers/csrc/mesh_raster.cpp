// Which triangle each pixel sees.
//
// At every pixel the corners are first seen from its centre, then the signs of the three edges are taken exactly. Two
// triangles with a common edge thus never disagree about it; centres on an edge go to the triangle that has it as its
// left or top side. So a closed surface has no cracks and draws nothing twice.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "mesh.h"

namespace sds3d {
namespace {

constexpr float FARTHEST = 1e5f;  // pixels; boxes are cut off there, far outside of any picture
constexpr float SLACK = 0.01f;    // pixels; boxes are larger by this, more than single precision loses
constexpr int WIDE = 8;           // columns taken at once in wide boxes

struct Corners {
  float x[3], y[3], w[3];
};

struct Target {
  int64_t width, top, bottom;  // rows top..bottom-1 are drawn
  int32_t* face;
  float *bary, *depth, *area;
};

struct Box {
  float left, right, top, bottom;
};

int ceiling(float x) {
  const int whole = static_cast<int>(x);
  return whole + (x > static_cast<float>(whole));
}

int floored(float x) {
  const int whole = static_cast<int>(x);
  return whole - (x < static_cast<float>(whole));
}

float limited(double x) { return static_cast<float>(std::clamp<double>(x, -FARTHEST, FARTHEST)); }

// Where a corner lies in the picture; not a number where it is too near, behind the camera, or not finite.
void project(const Mesh& mesh, int64_t view, float* screen) {
  const float* place = mesh.places + 3 * view * mesh.points;
  constexpr float none = std::numeric_limits<float>::quiet_NaN();
  for (int64_t k = 0; k < mesh.points; ++k, place += 3) {
    const bool fine =
        place[2] >= DRAWN_FROM && std::isfinite(place[0]) && std::isfinite(place[1]) && std::isfinite(place[2]);
    const double inverse = 1.0 / static_cast<double>(place[2]);
    screen[2 * k] = fine ? limited(place[0] * inverse) : none;
    screen[2 * k + 1] = fine ? limited(place[1] * inverse) : none;
  }
}

// The box of the part of a triangle that is far enough ahead; empty where there is none.
Box box_ahead(const Corners& t) {
  Box box{FARTHEST, -FARTHEST, FARTHEST, -FARTHEST};
  for (int k = 0; k < 3; ++k)
    if (!std::isfinite(t.x[k]) || !std::isfinite(t.y[k]) || !std::isfinite(t.w[k])) return box;
  const auto add = [&box](double x, double y) {
    box.left = std::min(box.left, limited(x)), box.right = std::max(box.right, limited(x));
    box.top = std::min(box.top, limited(y)), box.bottom = std::max(box.bottom, limited(y));
  };
  for (int a = 0; a < 3; ++a) {
    const int b = (a + 1) % 3;
    const double wa = t.w[a], wb = t.w[b];
    if (wa >= DRAWN_FROM) add(t.x[a] / wa, t.y[a] / wa);
    if ((wa >= DRAWN_FROM) == (wb >= DRAWN_FROM)) continue;
    const double share = (DRAWN_FROM - wa) / (wb - wa);
    add((t.x[a] + share * (static_cast<double>(t.x[b]) - t.x[a])) / DRAWN_FROM,
        (t.y[a] + share * (static_cast<double>(t.y[b]) - t.y[a])) / DRAWN_FROM);
  }
  return box;
}

// Whether the edge from a to b owns the pixel centres on it, for a triangle on the side where `sign` times the edge's
// function is positive: it does if moving a little to the right, or if that changes nothing down, leads inside.
bool owns(const Corners& t, int a, int b, double sign) {
  const double right = sign * crossed(t.y[a], t.w[a], t.y[b], t.w[b]);
  return right > 0 || (right == 0 && sign * crossed(t.w[a], t.x[a], t.w[b], t.x[b]) > 0);
}

// Draws one pixel if the triangle, whose edge functions there are e, is seen in it.
inline void offer(const Corners& t, int32_t id, const double* e, int64_t pixel, const Target& target) {
  const bool plus = e[0] >= 0 && e[1] >= 0 && e[2] >= 0, minus = e[0] <= 0 && e[1] <= 0 && e[2] <= 0;
  if (plus == minus) return;
  if (e[0] == 0 || e[1] == 0 || e[2] == 0)
    for (int k = 0; k < 3; ++k)
      if (e[k] == 0 && !owns(t, (k + 1) % 3, (k + 2) % 3, plus ? 1.0 : -1.0)) return;
  const double sum = e[0] + e[1] + e[2];
  const double doubled = e[0] * t.w[0] + e[1] * t.w[1] + e[2] * t.w[2];
  const double inverse = 1.0 / sum, depth = doubled * inverse;
  const float near = static_cast<float>(depth);
  if (!(depth >= DRAWN_FROM) || !(near < target.depth[pixel])) return;
  target.face[pixel] = id;
  target.depth[pixel] = near;
  target.area[pixel] = static_cast<float>(-doubled / (depth * depth * depth));
  for (int k = 0; k < 3; ++k) target.bary[3 * pixel + k] = static_cast<float>(e[k] * inverse);
}

void draw(const Corners& t, int32_t id, const Box& box, const Target& target) {
  const int j0 = std::max(0, ceiling(box.left - (0.5f + SLACK)));
  const int j1 = std::min(static_cast<int>(target.width) - 1, floored(box.right - (0.5f - SLACK)));
  const int i0 = std::max(static_cast<int>(target.top), ceiling(box.top - (0.5f + SLACK)));
  const int i1 = std::min(static_cast<int>(target.bottom) - 1, floored(box.bottom - (0.5f - SLACK)));
  if (j0 > j1) return;
  for (int i = i0; i <= i1; ++i) {
    float qy[3];
    for (int k = 0; k < 3; ++k) qy[k] = seen_from(t.y[k], t.w[k], i + 0.5);
    const int64_t row = i * target.width;
    int j = j0;
    for (; j + WIDE <= j1 + 1; j += WIDE) {
      double e[3][WIDE];
      float qx[3][WIDE];
      for (int k = 0; k < 3; ++k)
        for (int lane = 0; lane < WIDE; ++lane) qx[k][lane] = seen_from(t.x[k], t.w[k], j + lane + 0.5);
      for (int k = 0; k < 3; ++k) {
        const int a = (k + 1) % 3, b = (k + 2) % 3;
        for (int lane = 0; lane < WIDE; ++lane) e[k][lane] = crossed(qx[a][lane], qy[a], qx[b][lane], qy[b]);
      }
      for (int lane = 0; lane < WIDE; ++lane) {
        const double here[3] = {e[0][lane], e[1][lane], e[2][lane]};
        offer(t, id, here, row + j + lane, target);
      }
    }
    for (; j <= j1; ++j) {
      float qx[3];
      for (int k = 0; k < 3; ++k) qx[k] = seen_from(t.x[k], t.w[k], j + 0.5);
      const double e[3] = {crossed(qx[1], qy[1], qx[2], qy[2]), crossed(qx[2], qy[2], qx[0], qy[0]),
                           crossed(qx[0], qy[0], qx[1], qy[1])};
      offer(t, id, e, row + j, target);
    }
  }
}

void draw_rows(const Mesh& mesh, int64_t view, const float* screen, const Target& target) {
  const int64_t begin = target.top * target.width, end = target.bottom * target.width;
  std::fill(target.face + begin, target.face + end, -1);
  std::fill(target.bary + 3 * begin, target.bary + 3 * end, 0.0f);
  std::fill(target.area + begin, target.area + end, 0.0f);
  std::fill(target.depth + begin, target.depth + end, std::numeric_limits<float>::infinity());
  const float* places = mesh.places + 3 * view * mesh.points;
  for (int64_t f = 0; f < mesh.faces; ++f) {
    const int32_t* corner = mesh.corners + 3 * f;
    const float *a = screen + 2 * int64_t(corner[0]), *b = screen + 2 * int64_t(corner[1]),
                *c = screen + 2 * int64_t(corner[2]);
    Box box{std::min({a[0], b[0], c[0]}), std::max({a[0], b[0], c[0]}), std::min({a[1], b[1], c[1]}),
            std::max({a[1], b[1], c[1]})};
    const bool plain = a[0] + b[0] + c[0] == a[0] + b[0] + c[0];
    // Most triangles of a fine mesh lie between the centres of the pixels.
    if (plain && (ceiling(box.left - (0.5f + SLACK)) > floored(box.right - (0.5f - SLACK)) ||
                  ceiling(box.top - (0.5f + SLACK)) > floored(box.bottom - (0.5f - SLACK))))
      continue;
    Corners t;
    for (int k = 0; k < 3; ++k) {
      const float* place = places + 3 * int64_t(corner[k]);
      t.x[k] = place[0], t.y[k] = place[1], t.w[k] = place[2];
    }
    draw(t, static_cast<int32_t>(f), plain ? box : box_ahead(t), target);
  }
  for (int64_t p = begin; p < end; ++p)
    if (target.face[p] < 0) target.depth[p] = 0.0f;
}

}  // namespace

void rasterise(const Mesh& mesh, const Seen& seen) {
  const int64_t bands =
      std::max<int64_t>(1, std::min(mesh.height, (mesh.threads + mesh.views - 1) / std::max<int64_t>(1, mesh.views)));
  const int64_t pixels = mesh.height * mesh.width;
  std::vector<float> screen(2 * mesh.views * mesh.points);
#pragma omp parallel num_threads(mesh.threads) if (mesh.threads > 1)
  {
#pragma omp for
    for (int64_t v = 0; v < mesh.views; ++v) project(mesh, v, screen.data() + 2 * v * mesh.points);
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < mesh.views * bands; ++task) {
      const int64_t v = task / bands, band = task % bands;
      const Target target{mesh.width,
                          band * mesh.height / bands,
                          (band + 1) * mesh.height / bands,
                          seen.face + v * pixels,
                          seen.bary + 3 * v * pixels,
                          seen.depth + v * pixels,
                          seen.area + v * pixels};
      draw_rows(mesh, v, screen.data() + 2 * v * mesh.points, target);
    }
  }
}

}  // namespace sds3d
