// The C ABI of the splat kernels. Every pointer is checked by the caller; nothing is kept between calls.
#include <vector>

#include "splats.h"
#include "surfels.h"

using sds3d::Picture, sds3d::Plan, sds3d::Scene;

// Fills `records` and `radii`. Returns the number of pairs that `pairs` and `pair_sums` need room for.
extern "C" int64_t sds3d_splats_project(const Scene* scene, const Plan* plan) {
  scene->surfels ? sds3d::project_surfels(*scene, *plan) : sds3d::project(*scene, *plan);
  return sds3d::number_pairs(*scene, *plan);
}

// Fills `pairs` and `starts`, then the picture.
extern "C" void sds3d_splats_draw(const Scene* scene, const Plan* plan, const Picture* picture) {
  sds3d::sort_into_tiles(*scene, *plan);
  scene->surfels ? sds3d::draw_surfels(*scene, *plan, *picture) : sds3d::draw(*scene, *plan, *picture);
}

// Fills the gradients of the scene from those of the picture.
extern "C" void sds3d_splats_backward(const Scene* scene, const Plan* plan, const Picture* picture) {
  std::vector<int64_t> last_of_tile(int64_t(scene->views) * sds3d::tiles_across(*scene) * sds3d::tiles_down(*scene));
  const auto draw = scene->surfels ? sds3d::draw_surfels_backward : sds3d::draw_backward;
  const auto project = scene->surfels ? sds3d::project_surfels_backward : sds3d::project_backward;
  draw(*scene, *plan, *picture, last_of_tile.data());
  project(*scene, *plan, *picture, last_of_tile.data());
}
