// Surfels into pixels.
#include "splats_draw.h"
#include "surfels_blocks.h"

namespace sds3d {
namespace {

template <int CHANNELS>
void draw_tile(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  picture.distortion ? draw_tile<Disc, CHANNELS, true>(scene, plan, picture, index)
                     : draw_tile<Disc, CHANNELS, false>(scene, plan, picture, index);
}

}  // namespace

void draw_surfels(const Scene& scene, const Plan& plan, const Picture& picture) {
  each_tile(scene, [&](int64_t index) {
    scene.normals ? draw_tile<7>(scene, plan, picture, index) : draw_tile<4>(scene, plan, picture, index);
  });
}

}  // namespace sds3d
