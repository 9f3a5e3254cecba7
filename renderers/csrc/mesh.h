// Triangle meshes in pictures: what the stages hand to each other.
//
// The structs cross the C ABI; renderers/meshes/cpu_kernels.py mirrors them field by field. All arrays are dense, row-major
// and live in memory that the caller owns; the caller has checked every index. Pixel (row i, column j) has its centre
// at (j + 0.5, i + 0.5), y points down. A place is homogeneous: (x w, y w, w), x and y in pixels, w the depth along the
// camera's axis; it may be anything at all, also behind the camera or not a number.
//
// With p = (x, y, 1) the centre of a pixel and h0, h1, h2 the corners of a triangle, the corner k has the weight
// b_k = e_k / (e_0 + e_1 + e_2), where e_0 = det(h1, h2, p) and so on round: perspective-correct, and right for
// triangles that reach behind the camera too (Olano and Greer 1997). Seen from the pixel, q_k = h_k - w_k p lies in
// the picture's plane and e_0 = q1 x q2.
#pragma once
#include <cstdint>

namespace sds3d {

constexpr double DRAWN_FROM = 0.01;  // least depth that is drawn

struct Mesh {
  int64_t views, points, faces, edges, height, width, threads;
  const float* places;     // [views, points, 3]
  const int32_t* corners;  // [faces, 3]
  const int32_t* ends;     // [edges, 2]
  const int32_t* first;    // [edges + 1], where the wings of each edge begin
  const int32_t* wings;    // triangle * 2, + 1 where it runs from the edge's second end to its first
};

struct Seen {
  int32_t* face;  // [views, height, width], -1 where there is none
  float* bary;    // [views, height, width, 3]; this and the next two are 0 where there is no triangle
  float* depth;   // [views, height, width]
  float* area;    // [views, height, width], doubled area in pixels of the triangle were it flat at this pixel's scale,
                  // positive where its corners run counter-clockwise (y up)
};

// Values given at corners, blended at pixels.
struct Values {
  int64_t count, channels, per_view;  // per_view: 1 for [views, count, channels], 0 for [count, channels]
  const float* values;
  const int32_t* corners;  // [faces, 3]
  float* picture;          // [views, height, width, channels]
  const float* d_picture;  // its gradient, for the way back
  float* d_values;         // [views, count, channels], added to; may be null
  float* d_places;         // [views, points, 3], added to; may be null
};

// Where outlines pass between the centres of neighbouring pixels: [views, 2, height, width], first to the right of a
// pixel, then below it.
struct Crossings {
  int32_t* edge;  // -1 where there is none
  float* place;   // 0..1 from this pixel's centre to the neighbour's
};

struct Pictures {
  int64_t channels;
  const float* picture;   // [views, height, width, channels]
  float* smooth;          // the same, antialiased
  const float* d_smooth;  // its gradient, for the way back
  float* d_picture;       // written
  float* d_places;        // [views, points, 3], added to; may be null
};

// A square picture and its halvings, one after the other, and where they are looked up. Each but the last has an even
// number of texels along a side.
struct Texture {
  int64_t size, channels, levels, count, threads;
  float* texels;          // [size^2 + (size/2)^2 + ..., channels]; the first level is given
  const float* places;    // [count, 2], 0..1, (0, 0) the upper-left corner
  const float* detail;    // [count], level, 0 the finest
  const uint8_t* wanted;  // [count], 0 where nothing is looked up
  float* values;          // [count, channels], 0 where nothing is looked up
  const float* d_values;
  float* d_texels;  // like texels; given as zeros
  float* d_places;  // [count, 2], written; may be null
};

// A mesh as a shape in space. Gradients are added to.
struct Shape {
  int64_t count, faces, edges, pairs;
  double length;
  const float* points;        // [count, 3]
  const float* moved;         // [count, 3], how far they have moved
  const int32_t* corners;     // [faces, 3]
  const int32_t* ends;        // [edges, 2]
  const int32_t* neighbours;  // [pairs, 2], triangles with a common edge
  const float* rest;          // [pairs], 1 - cosine between them that is free
  const int32_t* rows;        // [faces, 3], the row of `sums` that each corner adds to
  float* sums;                // [rows, 3], added to
  const float* d_sums;
  float* d_points;  // [count, 3]
  float* d_moved;   // [count, 3]
};

void rasterise(const Mesh& mesh, const Seen& seen);
void blend(const Mesh& mesh, const Seen& seen, const Values& values);
void blend_backward(const Mesh& mesh, const Seen& seen, const Values& values);
void outline(const Mesh& mesh, const Seen& seen, const Crossings& crossings);
void antialias(const Mesh& mesh, const Crossings& crossings, const Pictures& pictures);
void antialias_backward(const Mesh& mesh, const Crossings& crossings, const Pictures& pictures);
void look_up_all(const Texture& texture);
void look_up_all_backward(const Texture& texture);
double unevenness(const Shape& shape);
double creasing(const Shape& shape);
void face_rows(const Shape& shape);
void face_rows_backward(const Shape& shape);

// The place of a corner seen from a pixel's centre. Products of two floats are exact in double, so the result does
// not depend on whether the compiler fuses operations, and is the same for every triangle that has the corner.
static inline float seen_from(float along, float depth, double centre) {
  return static_cast<float>(static_cast<double>(along) - static_cast<double>(depth) * centre);
}

// Its sign is exact, and swapping the two ends changes nothing but the sign.
static inline double crossed(float ax, float ay, float bx, float by) {
  return static_cast<double>(ax) * by - static_cast<double>(ay) * bx;
}

}  // namespace sds3d
