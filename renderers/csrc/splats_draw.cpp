// Gaussians into pixels.
#include "splats_draw.h"

namespace sds3d {

void draw(const Scene& scene, const Plan& plan, const Picture& picture) {
  each_tile(scene, [&](int64_t index) {
    scene.normals ? draw_tile<Near, 7, false>(scene, plan, picture, index)
                  : draw_tile<Near, 4, false>(scene, plan, picture, index);
  });
}

}  // namespace sds3d
