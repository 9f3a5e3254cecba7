// The C ABI of the mesh kernels. Every pointer and index is checked by the caller; nothing is kept between calls.
#include "mesh.h"

using sds3d::Crossings, sds3d::Mesh, sds3d::Pictures, sds3d::Seen, sds3d::Shape, sds3d::Texture, sds3d::Values;

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

extern "C" double sds3d_mesh_unevenness(const Shape* shape) { return sds3d::unevenness(*shape); }

extern "C" double sds3d_mesh_creasing(const Shape* shape) { return sds3d::creasing(*shape); }

extern "C" void sds3d_mesh_face_rows(const Shape* shape) { sds3d::face_rows(*shape); }

extern "C" void sds3d_mesh_face_rows_backward(const Shape* shape) { sds3d::face_rows_backward(*shape); }
