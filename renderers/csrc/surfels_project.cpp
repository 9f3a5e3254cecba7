// Surfels in space to facets in a picture, and the way back, one register of surfels at a time.
//
// In the notation of surfels.h, a disc of centre p = (x, y, z) = W m + w and axes a_0, a_1 of lengths s_0, s_1 has
//   q_k = s_k a_k.z / z,   J_0k = fx (s_k a_k.x / z - q_k x / z),   J_1k = fy (s_k a_k.y / z - q_k y / z),
// and det J = fx fy s_0 s_1 (n . p) / z^3 with n its normal, which is not lost to rounding where it is small.
#include "splats_space.h"
#include "surfels.h"

namespace sds3d {
namespace {

constexpr float SHARPEST = 1e6f;         // pixels^-2; thinner discs show only by their blur
constexpr float LEAST_CLEARANCE = 1e-4f; // discs nearer to the camera's plane may show in the whole picture
constexpr float WHOLE = 1e9f;            // pixels; a reach that no picture exceeds
constexpr float ROUNDEST = 1e-5f;        // ellipses that blocks are tested by are no flatter than this, in variances
constexpr float ELSEWHERE = -1e6f;       // pixels; where a disc is put of which only the blur shows

// Some surfels before one camera.
struct Faced {
  V3 axes[3];                            // a_0, a_1, n
  V3 discs[2];                           // s_k a_k / z
  Floats z, slope_x, slope_y;            // x / z, y / z
  Floats x, y;                           // where the centre lands
  Floats j[2][2], tilt[2];               // J and q
  Floats facing, area;                   // n . p / z, and det J
  Floats blur_x, blur_y, clearance;      // from (x, y) to the blur; 1 - q . q
  Floats g[2][2];                        // J^-1, where thick
  Ints thick;                            // whether more than the blur shows

  // `drawn`: lanes that count; the others are put where nothing divides by zero.
  Faced(const Turned& splats, const Lens& lens, Ints drawn) {
    z = choose(drawn, dot(lens.world[2], splats.mean) + lens.offset[2], same(1.0f));
    slope_x = (dot(lens.world[0], splats.mean) + lens.offset[0]) / z;
    slope_y = (dot(lens.world[1], splats.mean) + lens.offset[1]) / z;
    x = lens.fx * slope_x + lens.cx, y = lens.fy * slope_y + lens.cy;
    const auto& r = splats.rotation.m;
    for (int k = 0; k < 3; ++k) {
      const V3 axis = {r[0][k], r[1][k], r[2][k]};
      axes[k] = {dot(lens.world[0], axis), dot(lens.world[1], axis), dot(lens.world[2], axis)};
    }
    const Floats lengths[2] = {splats.scale.x / z, splats.scale.y / z};
    for (int k = 0; k < 2; ++k) {
      discs[k] = {axes[k].x * lengths[k], axes[k].y * lengths[k], axes[k].z * lengths[k]};
      tilt[k] = discs[k].z;
      j[0][k] = lens.fx * (discs[k].x - slope_x * tilt[k]);
      j[1][k] = lens.fy * (discs[k].y - slope_y * tilt[k]);
    }
    facing = axes[2].x * slope_x + axes[2].y * slope_y + axes[2].z;
    area = lens.fx * lens.fy * lengths[0] * lengths[1] * facing;
    clearance = 1.0f - (tilt[0] * tilt[0] + tilt[1] * tilt[1]);
    blur_x = -(j[0][0] * tilt[0] + j[0][1] * tilt[1]) / clearance;
    blur_y = -(j[1][0] * tilt[0] + j[1][1] * tilt[1]) / clearance;
    const Floats size = j[0][0] * j[0][0] + j[0][1] * j[0][1] + j[1][0] * j[1][0] + j[1][1] * j[1][1];
    thick = (size <= SHARPEST * (area * area)) & (area != 0.0f);
    const Floats per_area = 1.0f / choose(thick, area, same(1.0f));
    g[0][0] = j[1][1] * per_area, g[0][1] = -j[0][1] * per_area;
    g[1][0] = -j[1][0] * per_area, g[1][1] = j[0][0] * per_area;
  }
};

// An ellipse around all of a surfel that is no fainter than FAINTEST, in pixels: its middle, and u, v with u^2 + v^2 = 1
// on it, and the slopes, as of `RunDirectory`.
struct Outline {
  float x, y, ux, uy, vy, slope_x, slope_y;
  float reach_x, reach_y;                // half sizes of its box

  Outline(const Faced& faced, int lane, float opacity) {
    const float squared = 2 * std::log(std::max(opacity / FAINTEST, 1.0f));
    const float a = faced.j[0][0][lane], b = faced.j[0][1][lane], c = faced.j[1][0][lane], d = faced.j[1][1][lane];
    const float p = faced.tilt[0][lane], q = faced.tilt[1][lane], clearance = 1 - squared * (p * p + q * q);
    const bool whole = clearance < LEAST_CLEARANCE;
    const float scale = whole ? 0.0f : squared / clearance;
    const float to_x = -scale * (a * p + b * q), to_y = -scale * (c * p + d * q);
    // Widened, so that it holds the blur as well.
    const float apart = std::hypot(faced.blur_x[lane] - to_x, faced.blur_y[lane] - to_y);
    const float widened = (apart + std::sqrt(0.5f * squared)) * (apart + std::sqrt(0.5f * squared));
    const float xx = to_x * to_x + scale * (a * a + b * b) + widened;
    const float yy = to_y * to_y + scale * (c * c + d * d) + widened;
    x = faced.x[lane] + to_x, y = faced.y[lane] + to_y;
    reach_x = whole ? WHOLE : std::sqrt(xx), reach_y = whole ? WHOLE : std::sqrt(yy);
    const float xy = to_x * to_y + scale * (a * c + b * d), least = ROUNDEST * (xx + yy);
    const float fat_x = xx + least, fat_y = yy + least, determinant = fat_x * fat_y - xy * xy;
    ux = whole ? 0.0f : std::sqrt(fat_y / determinant), uy = -ux * xy / fat_y;
    vy = whole ? 0.0f : 1.0f / std::sqrt(fat_y);
    slope_x = xy / fat_y, slope_y = xy / fat_x;
  }
};

void record(const Scene& scene, const Faced& faced, int lane, float opacity, const float* colour, Record& r, Facet& f,
            int32_t& radius) {
  r = Record{};
  radius = 0;
  const float z = faced.z[lane];
  if (!(z > NEAR && z < FAR && faced.clearance[lane] > 0 && opacity >= FAINTEST)) return;  // also for NaN
  const Outline outline(faced, lane, opacity);
  const float x = outline.x, y = outline.y, reach_x = outline.reach_x, reach_y = outline.reach_y;
  if (!std::isfinite(x + y + reach_x + reach_y + faced.j[0][0][lane] + faced.j[0][1][lane] + faced.j[1][0][lane] +
                     faced.j[1][1][lane]))
    return;
  if (x + reach_x <= 0 || x - reach_x >= scene.width || y + reach_y <= 0 || y - reach_y >= scene.height) return;
  radius = int32_t(std::min(std::ceil(std::max(reach_x, reach_y)), WHOLE));
  // Blocks are tested by log2(alpha) >= log2(FAINTEST), which is 1 - u^2 - v^2 >= 0 here.
  r.x = x, r.y = y, r.ux = outline.ux, r.uy = outline.uy, r.vy = outline.vy;
  r.slope_x = outline.slope_x, r.slope_y = outline.slope_y;
  r.peak = 1.0f + std::log2(FAINTEST);
  std::copy(colour, colour + 3, r.colour);
  r.depth = z;
  r.cap = std::min(OPAQUE, opacity);
  tiles_touched(x, 1.0001f * reach_x + 1e-3f, scene.width, r.tile_x, r.tiles_x);
  tiles_touched(y, 1.0001f * reach_y + 1e-3f, scene.height, r.tile_y, r.tiles_y);
  if (r.tiles_x == 0 || r.tiles_y == 0) r.tiles_x = r.tiles_y = 0;
  const bool thick = faced.thick[lane];
  const float unit = thick ? ROOT : 1.0f;
  const auto g = [&](int i, int k) { return thick ? faced.g[i][k][lane] : float(i == k); };
  f.x = thick ? faced.x[lane] : ELSEWHERE, f.y = thick ? faced.y[lane] : ELSEWHERE;
  f.ux = unit * g(0, 0), f.uy = unit * g(0, 1), f.vx = unit * g(1, 0), f.vy = unit * g(1, 1);
  const float p = thick ? faced.tilt[0][lane] : 0.0f, q = thick ? faced.tilt[1][lane] : 0.0f;
  f.lean_x = p * g(0, 0) + q * g(1, 0), f.lean_y = p * g(0, 1) + q * g(1, 1);
  f.blur_x = faced.x[lane] + faced.blur_x[lane], f.blur_y = faced.y[lane] + faced.blur_y[lane];
  f.peak = std::log2(opacity);
}

void project_block(const Scene& scene, const Plan& plan, int first) {
  const Turned splats(scene, first);
  const int lanes = std::min(LANES, scene.count - first);
  for (int view = 0; view < scene.views; ++view) {
    const Faced faced(splats, Lens(scene, view), Ints{} == 0);
    for (int lane = 0; lane < lanes; ++lane) {
      const int64_t row = int64_t(view) * scene.count + first + lane;
      record(scene, faced, lane, splats.opacity[lane], colours_of(scene, view) + 3 * int64_t(first + lane),
             plan.records[row], plan.facets[row], plan.radii[row]);
    }
  }
}

// The gradients of one register of surfels.
struct Gradients {
  V3 mean = {}, colour = {};
  Floats opacity = {}, scale[2] = {};
  Floats rotation[3][3] = {};

  // Adds what one camera saw, in the lanes that it drew: `pair` are the sums over its tiles. Returns the gradient of
  // where the centres land.
  void add(Ints drawn, const Floats* pair, const Turned& splats, const Lens& lens, const Faced& f, Floats& d_x, Floats& d_y) {
    const auto some = [&](Floats& sum, Floats value) { sum += keep(drawn, value); };
    some(colour.x, pair[RED]), some(colour.y, pair[GREEN]), some(colour.z, pair[BLUE]);
    some(opacity, -pair[OF_S] / larger(splats.opacity, same(FAINTEST)));
    // The disc: J^-1 = G and l = G^T q. `Facet` has ROOT G.
    const auto& g = f.g;
    const Floats of_u = pair[OF_U] / ROOT, of_v = pair[OF_V] / ROOT, of_w = pair[OF_W] / (ROOT * ROOT);
    const Floats d_lean[2] = {-pair[OF_WX] / (ROOT * ROOT), -pair[OF_WY] / (ROOT * ROOT)};
    Floats d_g[2][2] = {{pair[OF_UX] / ROOT, pair[OF_UY] / ROOT}, {pair[OF_VX] / ROOT, pair[OF_VY] / ROOT}};
    Floats d_tilt[2];
    for (int k = 0; k < 2; ++k) {
      d_tilt[k] = keep(f.thick, d_lean[0] * g[k][0] + d_lean[1] * g[k][1]);
      for (int i = 0; i < 2; ++i) d_g[k][i] += f.tilt[k] * d_lean[i];
    }
    const Floats lean_x = f.tilt[0] * g[0][0] + f.tilt[1] * g[1][0], lean_y = f.tilt[0] * g[0][1] + f.tilt[1] * g[1][1];
    const Floats d_blur_x = 2 * pair[OF_BLUR_X], d_blur_y = 2 * pair[OF_BLUR_Y];
    d_x = d_blur_x + keep(f.thick, lean_x * of_w - g[0][0] * of_u - g[1][0] * of_v);
    d_y = d_blur_y + keep(f.thick, lean_y * of_w - g[0][1] * of_u - g[1][1] * of_v);
    const Floats per_area = keep(f.thick, 1.0f / choose(f.thick, f.area, same(1.0f)));
    const Floats d_area = -per_area * (d_g[0][0] * g[0][0] + d_g[0][1] * g[0][1] + d_g[1][0] * g[1][0] + d_g[1][1] * g[1][1]);
    Floats d_j[2][2] = {{d_g[1][1] * per_area, -d_g[0][1] * per_area}, {-d_g[1][0] * per_area, d_g[0][0] * per_area}};
    // The blur: b = -J q / (1 - q . q).
    const Floats along = 2 * (d_blur_x * f.blur_x + d_blur_y * f.blur_y) / f.clearance;
    for (int k = 0; k < 2; ++k) {
      d_tilt[k] += along * f.tilt[k] - (f.j[0][k] * d_blur_x + f.j[1][k] * d_blur_y) / f.clearance;
      d_j[0][k] -= f.tilt[k] * d_blur_x / f.clearance;
      d_j[1][k] -= f.tilt[k] * d_blur_y / f.clearance;
    }
    add_space(drawn, splats, lens, f, d_x, d_y, d_j, d_tilt, d_area, pair[DEPTH]);
  }

  // From what a camera sees of a disc to the disc.
  void add_space(Ints drawn, const Turned& splats, const Lens& lens, const Faced& f, Floats d_x, Floats d_y,
                 const Floats d_j[2][2], const Floats d_tilt[2], Floats d_area, Floats d_depth) {
    const Floats iz = 1.0f / f.z, lengths[2] = {splats.scale.x * iz, splats.scale.y * iz};
    const Floats squares = lens.fx * lens.fy * d_area, d_facing = squares * lengths[0] * lengths[1];
    Floats d_slope_x = lens.fx * d_x + d_facing * f.axes[2].x, d_slope_y = lens.fy * d_y + d_facing * f.axes[2].y;
    Floats d_z = d_depth - 2 * d_area * f.area * iz;
    V3 d_axes[3];
    d_axes[2] = {d_facing * f.slope_x, d_facing * f.slope_y, d_facing};
    for (int k = 0; k < 2; ++k) {
      const Floats d_to_x = lens.fx * d_j[0][k], d_to_y = lens.fy * d_j[1][k];
      const V3 d_disc = {d_to_x, d_to_y, d_tilt[k] - f.slope_x * d_to_x - f.slope_y * d_to_y};
      d_slope_x -= f.tilt[k] * d_to_x, d_slope_y -= f.tilt[k] * d_to_y;
      d_z -= dot(d_disc, f.discs[k]) * iz;
      d_axes[k] = {d_disc.x * lengths[k], d_disc.y * lengths[k], d_disc.z * lengths[k]};
      scale[k] += keep(drawn, (dot(d_disc, f.axes[k]) + squares * lengths[1 - k] * f.facing) * iz);
    }
    const V3 d_p = {d_slope_x * iz, d_slope_y * iz, d_z - (f.slope_x * d_slope_x + f.slope_y * d_slope_y) * iz};
    const auto back = [&](const V3& d, int i) {
      return keep(drawn, lens.world[0][i] * d.x + lens.world[1][i] * d.y + lens.world[2][i] * d.z);
    };
    mean.x += back(d_p, 0), mean.y += back(d_p, 1), mean.z += back(d_p, 2);
    for (int k = 0; k < 3; ++k)
      for (int i = 0; i < 3; ++i) rotation[i][k] += back(d_axes[k], i);
  }
};

void project_block_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int64_t* last_of_tile, int first) {
  const Turned splats(scene, first);
  const auto write_three = [&](float* array, const V3& d) {
    const Floats columns[3] = {d.x, d.y, d.z};
    write_rows<3>(array, first, scene.count, columns);
  };
  Gradients gradients;
  Ints ever = {};
  for (int view = 0; view < scene.views; ++view) {
    const int64_t offset = int64_t(view) * scene.count;
    Floats pair[SURFEL_SUMS], d_x, d_y;
    const auto sum = scene.normals ? sum_pairs<SURFEL_SUMS> : sum_pairs<OF_NORMAL>;
    const Ints drawn = sum(scene, plan, picture, last_of_tile, view, first, pair);
    const Lens lens(scene, view);
    gradients.add(drawn, pair, splats, lens, Faced(splats, lens, drawn), d_x, d_y);
    ever |= drawn;
    const Floats d_place[2] = {keep(drawn, d_x), keep(drawn, d_y)};
    write_rows<2>(picture.d_means2d + 2 * offset, first, scene.count, d_place);
    if (scene.normals)
      write_three(picture.d_normals + 3 * offset, {pair[OF_NORMAL], pair[OF_NORMAL + 1], pair[OF_NORMAL + 2]});
    if (scene.colours_per_view) write_three(picture.d_colours + 3 * offset, {pair[RED], pair[GREEN], pair[BLUE]});
  }
  if (!scene.colours_per_view) write_three(picture.d_colours, gradients.colour);
  Floats d_quat[4];
  splats.turn_back(gradients.rotation, d_quat);
  write_three(picture.d_means, gradients.mean);
  write_three(picture.d_scales, {gradients.scale[0], gradients.scale[1], Floats{}});
  for (Floats& d : d_quat) d = keep(ever, d);
  write_rows<4>(picture.d_quats, first, scene.count, d_quat);
  write_rows<1>(picture.d_opacities, first, scene.count, &gradients.opacity);
}

}  // namespace

void project_surfels(const Scene& scene, const Plan& plan) {
#pragma omp parallel for schedule(static) num_threads(scene.threads) if (scene.threads > 1)
  for (int first = 0; first < scene.count; first += LANES) project_block(scene, plan, first);
}

void project_surfels_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int64_t* last_of_tile) {
#pragma omp parallel for schedule(static) num_threads(scene.threads) if (scene.threads > 1)
  for (int first = 0; first < scene.count; first += LANES) project_block_backward(scene, plan, picture, last_of_tile, first);
}

}  // namespace sds3d
