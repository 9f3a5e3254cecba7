// What a mesh is like as a shape: how unevenly its points have moved, how much sharper its creases have become, and
// which way it faces at its vertices. Each in one pass, with the gradients.
#include <algorithm>
#include <cmath>
#include <vector>

#include "mesh.h"

namespace sds3d {
namespace {

struct Vector {
  double x, y, z;
};

Vector at(const float* values, int64_t row) { return {values[3 * row], values[3 * row + 1], values[3 * row + 2]}; }
Vector operator-(Vector a, Vector b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
Vector operator+(Vector a, Vector b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
Vector operator*(double k, Vector a) { return {k * a.x, k * a.y, k * a.z}; }
double dot(Vector a, Vector b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
Vector cross(Vector a, Vector b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }

void add(float* values, int64_t row, Vector a) {
  values[3 * row] += static_cast<float>(a.x);
  values[3 * row + 1] += static_cast<float>(a.y);
  values[3 * row + 2] += static_cast<float>(a.z);
}

// A vector across a triangle, twice as long as its area.
Vector across(const Shape& shape, int64_t face) {
  const int32_t* corner = shape.corners + 3 * face;
  const Vector a = at(shape.points, corner[0]);
  return cross(at(shape.points, corner[1]) - a, at(shape.points, corner[2]) - a);
}

// Adds the gradient of that vector to the corners.
void back_across(const Shape& shape, int64_t face, Vector d, float* d_points) {
  const int32_t* corner = shape.corners + 3 * face;
  const Vector a = at(shape.points, corner[0]), b = at(shape.points, corner[1]), c = at(shape.points, corner[2]);
  add(d_points, corner[0], cross(b - c, d));
  add(d_points, corner[1], cross(c - a, d));
  add(d_points, corner[2], cross(a - b, d));
}

}  // namespace

// The mean over points of the squared difference to the mean of the neighbours, in `length`; its gradient in d_moved.
double unevenness(const Shape& shape) {
  std::vector<Vector> apart(shape.count, Vector{0, 0, 0});
  std::vector<int32_t> degree(shape.count, 0);
  for (int64_t e = 0; e < shape.edges; ++e) {
    const int32_t a = shape.ends[2 * e], b = shape.ends[2 * e + 1];
    const Vector difference = at(shape.moved, a) - at(shape.moved, b);
    apart[a] = apart[a] + difference, apart[b] = apart[b] - difference;
    ++degree[a], ++degree[b];
  }
  double sum = 0;
  const double scale = 1.0 / (shape.length * shape.length * static_cast<double>(std::max<int64_t>(1, shape.count)));
  for (int64_t p = 0; p < shape.count; ++p) {
    const double inverse = 1.0 / std::max(1, degree[p]);
    sum += scale * inverse * inverse * dot(apart[p], apart[p]);
    apart[p] = (2 * scale * inverse * inverse) * apart[p];
  }
  for (int64_t e = 0; e < shape.edges; ++e) {
    const int32_t a = shape.ends[2 * e], b = shape.ends[2 * e + 1];
    const Vector d = apart[a] - apart[b];
    add(shape.d_moved, a, d);
    add(shape.d_moved, b, -1.0 * d);
  }
  return sum;
}

// The mean over pairs of neighbouring triangles of what 1 - cosine exceeds `rest` by; its gradient in d_points.
double creasing(const Shape& shape) {
  std::vector<Vector> front(shape.faces), d_front(shape.faces, Vector{0, 0, 0});
  std::vector<double> inverse(shape.faces);
  for (int64_t f = 0; f < shape.faces; ++f) {
    const Vector v = across(shape, f);
    const double length = std::sqrt(dot(v, v));
    inverse[f] = length > 1e-20 ? 1.0 / length : 0.0;
    front[f] = inverse[f] * v;
  }
  double sum = 0;
  const double share = 1.0 / static_cast<double>(std::max<int64_t>(1, shape.pairs));
  for (int64_t n = 0; n < shape.pairs; ++n) {
    const int32_t a = shape.neighbours[2 * n], b = shape.neighbours[2 * n + 1];
    const double grown = 1 - dot(front[a], front[b]) - shape.rest[n];
    if (!(grown > 0)) continue;
    sum += share * grown;
    d_front[a] = d_front[a] - share * front[b];
    d_front[b] = d_front[b] - share * front[a];
  }
  for (int64_t f = 0; f < shape.faces; ++f) {
    const Vector d = inverse[f] * (d_front[f] - dot(d_front[f], front[f]) * front[f]);
    back_across(shape, f, d, shape.d_points);
  }
  return sum;
}

// Sums the vectors across the triangles around each row, a normal that is not yet of unit length.
void face_rows(const Shape& shape) {
  for (int64_t f = 0; f < shape.faces; ++f) {
    const Vector v = across(shape, f);
    for (int k = 0; k < 3; ++k) add(shape.sums, shape.rows[3 * f + k], v);
  }
}

void face_rows_backward(const Shape& shape) {
  for (int64_t f = 0; f < shape.faces; ++f) {
    const int32_t* row = shape.rows + 3 * f;
    const Vector d = at(shape.d_sums, row[0]) + at(shape.d_sums, row[1]) + at(shape.d_sums, row[2]);
    back_across(shape, f, d, shape.d_points);
  }
}

}  // namespace sds3d
