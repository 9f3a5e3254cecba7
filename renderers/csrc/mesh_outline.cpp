// Outlines: where a surface ends in a picture, and pictures smoothed there.
//
// An edge is an outline where all its triangles lie on one side of it in the picture. Every outline is followed through
// the rows and columns of pixel centres it crosses, however short it is, so that a mesh of triangles smaller than
// pixels loses nothing. Where several cross between the same two centres, the outermost is the surface's end. A pixel
// then takes from a neighbour what the outline leaves of it: (1/2 - distance) of the neighbour's colour, along the axis
// on which an outline is nearer, so that it is crossed as squarely as can be.
#include <algorithm>
#include <cmath>
#include <vector>

#include "mesh.h"

namespace sds3d {
namespace {

constexpr float BEHIND = 1e-4f;  // share of its depth that a surface must lie behind an outline to be hidden by it

// An edge, with the axis across which it is crossed first: `along` is x for crossings of rows.
struct Edge {
  double along[2], across[2], w[2];
};

struct Grid {
  int64_t lines, places;        // lines that can be crossed, and pixels along each
  int64_t per_line, per_place;  // steps in the arrays of pixels
};

// 1 or -1 for the two sides, 0 where the edge is no outline. Triangles seen edge-on have no say.
int side(const Mesh& mesh, const int8_t* facing, int64_t edge) {
  int found = 0;
  for (int32_t k = mesh.first[edge]; k < mesh.first[edge + 1]; ++k) {
    const int32_t wing = mesh.wings[k];
    const int here = (wing & 1) ? -facing[wing >> 1] : facing[wing >> 1];
    if (here == 0) continue;
    if (found == -here) return 0;
    found = here;
  }
  return found;
}

void face_all(const Mesh& mesh, const float* places, int8_t* facing) {
  for (int64_t f = 0; f < mesh.faces; ++f) {
    const int32_t* corner = mesh.corners + 3 * f;
    const float *a = places + 3 * int64_t(corner[0]), *b = places + 3 * int64_t(corner[1]),
                *c = places + 3 * int64_t(corner[2]);
    const double doubled = c[0] * crossed(a[1], a[2], b[1], b[2]) + c[1] * crossed(a[2], a[0], b[2], b[0]) +
                           c[2] * crossed(a[0], a[1], b[0], b[1]);
    facing[f] = static_cast<int8_t>((doubled > 0) - (doubled < 0));
  }
}

// First and last line that the part of the edge far enough ahead may cross.
bool reach(const Edge& edge, int64_t lines, int64_t* from, int64_t* to) {
  double low = 1e300, high = -1e300;
  for (int k = 0; k < 2; ++k) {
    double place = edge.across[k], w = edge.w[k];
    if (w < DRAWN_FROM) {
      const double other = edge.w[1 - k];
      if (other < DRAWN_FROM) return false;
      place += (DRAWN_FROM - w) / (other - w) * (edge.across[1 - k] - place);
      w = DRAWN_FROM;
    }
    low = std::min(low, place / w), high = std::max(high, place / w);
  }
  const double last = static_cast<double>(lines - 1);
  if (!(low - 0.5 <= last && high - 0.5 >= 0)) return false;
  *from = static_cast<int64_t>(std::max(0.0, std::floor(low - 0.5)));
  *to = static_cast<int64_t>(std::min(last, std::ceil(high - 0.5)));
  return true;
}

// Enters the crossings of one edge with all lines. `inner` is 1 where its surface lies toward lower places; `reached`
// is how far from the centre of the pixel that shows it a surface reaches across each pair.
void follow(const Edge& edge, int32_t id, int inner, const Grid& grid, const int32_t* face, const float* depth,
            const Crossings& found, float* reached) {
  int64_t from, to;
  if (!reach(edge, grid.lines, &from, &to)) return;
  for (int64_t line = from; line <= to; ++line) {
    const double centre = static_cast<double>(line) + 0.5;
    const double a = edge.across[0] - edge.w[0] * centre, b = edge.across[1] - edge.w[1] * centre;
    if ((a >= 0) == (b >= 0)) continue;
    const double share = a / (a - b), w = edge.w[0] + share * (edge.w[1] - edge.w[0]);
    if (!(w >= DRAWN_FROM)) continue;
    const double place = (edge.along[0] + share * (edge.along[1] - edge.along[0])) / w - 0.5;
    if (!(place >= 0 && place < static_cast<double>(grid.places - 1))) continue;
    const int64_t before = static_cast<int64_t>(place);
    const float t = static_cast<float>(place - static_cast<double>(before));
    const int64_t left = line * grid.per_line + before * grid.per_place, right = left + grid.per_place;
    const int64_t near = inner ? left : right, far = inner ? right : left;
    if (face[near] < 0 || (face[far] >= 0 && depth[far] <= w * (1 + BEHIND))) continue;
    const float reach = inner ? t : 1 - t;
    if (found.edge[left] >= 0 && reach <= reached[left]) continue;
    found.edge[left] = id, found.place[left] = t, reached[left] = reach;
  }
}

void outline_view(const Mesh& mesh, const float* places, const int32_t* face, const float* depth,
                  const Crossings& found) {
  const int64_t pixels = mesh.height * mesh.width;
  std::fill(found.edge, found.edge + 2 * pixels, -1);
  std::fill(found.place, found.place + 2 * pixels, 0.0f);
  std::vector<float> reached(2 * pixels);
  std::vector<int8_t> facing(mesh.faces);
  face_all(mesh, places, facing.data());
  for (int64_t e = 0; e < mesh.edges; ++e) {
    const int which = side(mesh, facing.data(), e);
    if (which == 0) continue;
    const float *a = places + 3 * int64_t(mesh.ends[2 * e]), *b = places + 3 * int64_t(mesh.ends[2 * e + 1]);
    const Edge rows{{a[0], b[0]}, {a[1], b[1]}, {a[2], b[2]}}, columns{{a[1], b[1]}, {a[0], b[0]}, {a[2], b[2]}};
    // The edge's function grows to the right, or downward, by these; `which` times it is positive on the surface.
    const double right = which * crossed(a[1], a[2], b[1], b[2]), down = which * crossed(a[2], a[0], b[2], b[0]);
    follow(rows, static_cast<int32_t>(e), right < 0, {mesh.height, mesh.width, mesh.width, 1}, face, depth, found,
           reached.data());
    const Crossings below{found.edge + pixels, found.place + pixels};
    follow(columns, static_cast<int32_t>(e), down < 0, {mesh.width, mesh.height, 1, mesh.width}, face, depth, below,
           reached.data() + pixels);
  }
}

// What one pixel takes from its neighbours: at most two, on opposite sides.
struct Taken {
  int count;
  int64_t crossing[2], neighbour[2];  // in the arrays of one view
  float share[2];
  float sign[2];  // of the change of the share when the crossing's place grows
};

Taken taken(const Mesh& mesh, const Crossings& found, int64_t i, int64_t j) {
  const int64_t pixels = mesh.height * mesh.width, p = i * mesh.width + j;
  constexpr float far = 2.0f;
  const float right = found.edge[p] >= 0 ? found.place[p] : far;
  const float left = j > 0 && found.edge[p - 1] >= 0 ? 1 - found.place[p - 1] : far;
  const float below = found.edge[pixels + p] >= 0 ? found.place[pixels + p] : far;
  const float above =
      i > 0 && found.edge[pixels + p - mesh.width] >= 0 ? 1 - found.place[pixels + p - mesh.width] : far;
  const bool row = std::min(left, right) <= std::min(above, below);
  const float after = row ? right : below, before = row ? left : above;
  const int64_t step = row ? 1 : mesh.width, base = row ? p : pixels + p;
  Taken t{};
  if (after < 0.5f)
    t.crossing[0] = base, t.neighbour[0] = p + step, t.share[0] = 0.5f - after, t.sign[0] = -1, t.count = 1;
  if (before < 0.5f) {
    const int k = t.count++;
    t.crossing[k] = base - step, t.neighbour[k] = p - step, t.share[k] = 0.5f - before, t.sign[k] = 1;
  }
  return t;
}

// Adds the gradient of a crossing's place to the ends of its edge.
void back_to_ends(const Mesh& mesh, const float* places, const Crossings& found, int64_t crossing, double d,
                  float* d_places) {
  const int64_t pixels = mesh.height * mesh.width, p = crossing % pixels;
  const bool row = crossing < pixels;
  double x = static_cast<double>(p % mesh.width) + 0.5, y = static_cast<double>(p / mesh.width) + 0.5;
  (row ? x : y) += found.place[crossing];
  const int32_t* ends = mesh.ends + 2 * int64_t(found.edge[crossing]);
  const float *a = places + 3 * int64_t(ends[0]), *b = places + 3 * int64_t(ends[1]);
  const double ax = a[0] - a[2] * x, ay = a[1] - a[2] * y, bx = b[0] - b[2] * x, by = b[1] - b[2] * y;
  const double slope = row ? ay * b[2] - by * a[2] : bx * a[2] - ax * b[2];
  if (slope == 0) return;
  const double k = d / slope;
  const double to[2][2] = {{-k * by, k * bx}, {k * ay, -k * ax}};
  for (int end = 0; end < 2; ++end) {
    float* to_place = d_places + 3 * int64_t(ends[end]);
    to_place[0] += static_cast<float>(to[end][0]);
    to_place[1] += static_cast<float>(to[end][1]);
    to_place[2] -= static_cast<float>(to[end][0] * x + to[end][1] * y);
  }
}

}  // namespace

void outline(const Mesh& mesh, const Seen& seen, const Crossings& crossings) {
  const int64_t pixels = mesh.height * mesh.width;
#pragma omp parallel for num_threads(mesh.threads) if (mesh.threads > 1)
  for (int64_t v = 0; v < mesh.views; ++v) {
    const Crossings found{crossings.edge + 2 * v * pixels, crossings.place + 2 * v * pixels};
    outline_view(mesh, mesh.places + 3 * v * mesh.points, seen.face + v * pixels, seen.depth + v * pixels, found);
  }
}

void antialias(const Mesh& mesh, const Crossings& crossings, const Pictures& pictures) {
  const int64_t pixels = mesh.height * mesh.width, channels = pictures.channels;
#pragma omp parallel for num_threads(mesh.threads) if (mesh.threads > 1)
  for (int64_t v = 0; v < mesh.views; ++v) {
    const Crossings found{crossings.edge + 2 * v * pixels, crossings.place + 2 * v * pixels};
    const float* from = pictures.picture + v * pixels * channels;
    float* to = pictures.smooth + v * pixels * channels;
    std::copy(from, from + pixels * channels, to);
    for (int64_t i = 0; i < mesh.height; ++i)
      for (int64_t j = 0; j < mesh.width; ++j) {
        const Taken t = taken(mesh, found, i, j);
        for (int n = 0; n < t.count; ++n) {
          const float *here = from + (i * mesh.width + j) * channels, *other = from + t.neighbour[n] * channels;
          float* out = to + (i * mesh.width + j) * channels;
          for (int64_t k = 0; k < channels; ++k) out[k] += t.share[n] * (other[k] - here[k]);
        }
      }
  }
}

void antialias_backward(const Mesh& mesh, const Crossings& crossings, const Pictures& pictures) {
  const int64_t pixels = mesh.height * mesh.width, channels = pictures.channels;
#pragma omp parallel for num_threads(mesh.threads) if (mesh.threads > 1)
  for (int64_t v = 0; v < mesh.views; ++v) {
    const Crossings found{crossings.edge + 2 * v * pixels, crossings.place + 2 * v * pixels};
    const float *from = pictures.picture + v * pixels * channels, *g = pictures.d_smooth + v * pixels * channels;
    float* to = pictures.d_picture + v * pixels * channels;
    float* d_places = pictures.d_places ? pictures.d_places + 3 * v * mesh.points : nullptr;
    std::copy(g, g + pixels * channels, to);
    for (int64_t i = 0; i < mesh.height; ++i)
      for (int64_t j = 0; j < mesh.width; ++j) {
        const Taken t = taken(mesh, found, i, j);
        const int64_t here = (i * mesh.width + j) * channels;
        for (int n = 0; n < t.count; ++n) {
          const int64_t other = t.neighbour[n] * channels;
          double d_share = 0;
          for (int64_t k = 0; k < channels; ++k) {
            d_share += static_cast<double>(g[here + k]) * (from[other + k] - from[here + k]);
            to[other + k] += t.share[n] * g[here + k];
            to[here + k] -= t.share[n] * g[here + k];
          }
          if (d_places)
            back_to_ends(mesh, mesh.places + 3 * v * mesh.points, found, t.crossing[n], d_share * t.sign[n], d_places);
        }
      }
  }
}

}  // namespace sds3d
