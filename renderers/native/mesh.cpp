// The C ABI of the mesh kernels. Every pointer and index is checked by the caller; nothing is kept between calls.
#include "mesh.h"

using sds3d::Crossings, sds3d::Mesh, sds3d::Pictures, sds3d::Seen, sds3d::Texture, sds3d::Values;

extern "C" void sds3d_mesh_rasterise(const Mesh* mesh, const Seen* seen) { sds3d::rasterise(*mesh, *seen); }

extern "C" void sds3d_mesh_blend(const Mesh* mesh, const Seen* seen, const Values* values) {
  sds3d::blend(*mesh, *seen, *values);
}

extern "C" void sds3d_mesh_blend_backward(const Mesh* mesh, const Seen* seen, const Values* values) {
  sds3d::blend_backward(*mesh, *seen, *values);
}

extern "C" void sds3d_mesh_outline(const Mesh* mesh, const Seen* seen, const Crossings* crossings) {
  sds3d::outline(*mesh, *seen, *crossings);
}

extern "C" void sds3d_mesh_antialias(const Mesh* mesh, const Crossings* crossings, const Pictures* pictures) {
  sds3d::antialias(*mesh, *crossings, *pictures);
}

extern "C" void sds3d_mesh_antialias_backward(const Mesh* mesh, const Crossings* crossings, const Pictures* pictures) {
  sds3d::antialias_backward(*mesh, *crossings, *pictures);
}

extern "C" void sds3d_mesh_texture(const Texture* texture) { sds3d::look_up_all(*texture); }

extern "C" void sds3d_mesh_texture_backward(const Texture* texture) { sds3d::look_up_all_backward(*texture); }
