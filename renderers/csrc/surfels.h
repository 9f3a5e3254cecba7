// Surfels: flat discs with a Gaussian on them (Huang et al. 2024), drawn by the tiles and blocks of the splats.
//
// The point of a disc that is (u, v) standard deviations from its centre lands at m + J (u, v) / (1 + q . (u, v)), with m
// where the centre lands, J = `steps`, q = `tilts` of surfel_reference.py. So the ray of a pixel at d from m meets
//   (u, v) = G d / (1 - l . d),   G = J^-1,   l = G^T q,
// in front of the camera where 1 - l . d > 0; there alpha = opacity e^-s with s = (u^2 + v^2) / 2, or, where that is
// less, s = |d - b|^2, a blur around b.
#pragma once
#include "splats.h"

namespace sds3d {

constexpr float LOG2_OF_E = 1.44269504f;

// A surfel in one picture. Its record holds an ellipse around all that shows of it.
struct Facet {
  float x, y;                  // m, pixels
  float ux, uy, vx, vy;        // ROOT G
  float lean_x, lean_y;        // l
  float blur_x, blur_y;        // m + b
  float peak;                  // log2 of the opacity
  float unused[5];
};
static_assert(sizeof(Facet) == 64, "one cache line");

// What the way back sums over the pixels of one pair: the gradients of colour and depth; with D the gradient of s,
// D itself, D ROOT u / w, D ROOT v / w and -D ROOT^2 (u^2 + v^2) / w where the disc shows, w = 1 - l . d; these three
// times dx and dy; D times the way from the pixel to the blur where that shows; the gradients of the normal.
enum SurfelSums {
  OF_S = 4, OF_U, OF_V, OF_W, OF_UX, OF_UY, OF_VX, OF_VY, OF_WX, OF_WY, OF_BLUR_X, OF_BLUR_Y,
  OF_NORMAL, SURFEL_SUMS = 20
};

// As their namesakes of splats.h.
void project_surfels(const Scene& scene, const Plan& plan);
void draw_surfels(const Scene& scene, const Plan& plan, const Picture& picture);
void draw_surfels_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t* last_of_tile);
void project_surfels_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int64_t* last_of_tile);

}  // namespace sds3d
