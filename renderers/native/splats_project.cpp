// Splats in space to ellipses in a picture, and the way back, one register of splats at a time.
//
// The conventions are gsplat 1.5.3's. A splat of mean m and covariance S = M M^T, M = R(quat) diag(scales), lands at
// (fx x/z + cx, fy y/z + cy) for p = (x, y, z) = W m + w, with covariance T S T^T + 0.3, T = J W, where J is the
// derivative of that map at p, its x/z and y/z clamped to 1.3 times the picture (Zwicker et al. 2001, equation 31).
#include "splats_space.h"

namespace sds3d {
namespace {

constexpr float LOG2_E = 1.44269504f;
constexpr float WIDEST = 3.33f;        // standard deviations that are drawn at most
constexpr float LARGEST = 1e37f;       // pixels^4; a greater determinant is not drawn
constexpr float FLATTEST = 1e-20f;     // pixels^4; nor is anything by a smaller determinant

struct Symmetric {
  Floats xx, xy, xz, yy, yz, zz;
};

V3 operator*(const Symmetric& a, const V3& v) {
  return {a.xx * v.x + a.xy * v.y + a.xz * v.z, a.xy * v.x + a.yy * v.y + a.yz * v.z,
          a.xz * v.x + a.yz * v.y + a.zz * v.z};
}

struct Splats : Turned {
  Symmetric covariance;

  Splats(const Scene& scene, int first) : Turned(scene, first) {
    const auto& m = rotation.m;
    const Floats a = scale.x * scale.x, b = scale.y * scale.y, c = scale.z * scale.z;
    const auto entry = [&](int i, int j) {
      return a * m[i][0] * m[j][0] + b * m[i][1] * m[j][1] + c * m[i][2] * m[j][2];
    };
    covariance = {entry(0, 0), entry(0, 1), entry(0, 2), entry(1, 1), entry(1, 2), entry(2, 2)};
  }
};

// Some splats before one camera.
struct Seen {
  Floats px, py, z, inverse_z;             // p of the header
  Ints inside_x, inside_y;               // whether x/z and y/z are within the clamps
  Floats tx, ty;                           // x and y after them
  V3 t0, t1, u0, u1;                   // rows of T, and of T S
  Floats x, y;                             // where they land
  Floats a, b, c, determinant;             // covariance ((a, b), (b, c)) there, blurred
  Floats sharp, fade;                      // determinant before the blur; what opacity is multiplied by

  // `drawn`: lanes that count; the others are put where nothing divides by zero.
  Seen(const Splats& splats, const Lens& lens, Ints drawn, bool antialiased) {
    px = dot(lens.world[0], splats.mean) + lens.offset[0];
    py = dot(lens.world[1], splats.mean) + lens.offset[1];
    z = dot(lens.world[2], splats.mean) + lens.offset[2];
    z = choose(drawn, z, same(1.0f));
    inverse_z = 1.0f / z;
    const Floats slope_x = px * inverse_z, slope_y = py * inverse_z;
    inside_x = (slope_x >= lens.left) & (slope_x <= lens.right);
    inside_y = (slope_y >= lens.top) & (slope_y <= lens.bottom);
    tx = z * smaller(larger(slope_x, same(lens.left)), same(lens.right));
    ty = z * smaller(larger(slope_y, same(lens.top)), same(lens.bottom));
    x = lens.fx * slope_x + lens.cx;
    y = lens.fy * slope_y + lens.cy;
    const Floats j00 = lens.fx * inverse_z, j02 = -j00 * tx * inverse_z;
    const Floats j11 = lens.fy * inverse_z, j12 = -j11 * ty * inverse_z;
    const auto& w = lens.world;
    t0 = {j00 * w[0][0] + j02 * w[2][0], j00 * w[0][1] + j02 * w[2][1], j00 * w[0][2] + j02 * w[2][2]};
    t1 = {j11 * w[1][0] + j12 * w[2][0], j11 * w[1][1] + j12 * w[2][1], j11 * w[1][2] + j12 * w[2][2]};
    u0 = splats.covariance * t0, u1 = splats.covariance * t1;
    a = dot(u0, t0), b = dot(u0, t1), c = dot(u1, t1);
    sharp = larger(a * c - b * b, Floats{});
    a += BLUR, c += BLUR;
    determinant = choose(drawn, a * c - b * b, same(1.0f));
    fade = antialiased ? root(sharp / determinant) : same(1.0f);
  }
};

// Half the width of what is drawn, in standard deviations.
float extent_of(float opacity) {
  return std::min(WIDEST, std::sqrt(2 * std::log(std::max(opacity / FAINTEST, 1.0f))));
}

void record(const Scene& scene, const Seen& seen, int lane, float opacity, float extent, const float* colour,
            Record& r, int32_t& radius) {
  r = Record{};
  radius = 0;
  const float z = seen.z[lane], determinant = seen.determinant[lane];
  const bool sane = determinant > 0 && determinant <= LARGEST;
  if (!(z >= NEAR && z <= FAR && sane && opacity >= FAINTEST)) return;  // also for NaN
  const float spread_x = std::sqrt(seen.a[lane]), spread_y = std::sqrt(seen.c[lane]);
  const float x = seen.x[lane], y = seen.y[lane];
  const float box_x = std::ceil(extent * spread_x), box_y = std::ceil(extent * spread_y);
  if ((box_x <= 0 && box_y <= 0) || x + box_x <= 0 || x - box_x >= scene.width || y + box_y <= 0 ||
      y - box_y >= scene.height)
    return;
  radius = int32_t(std::min(std::max(box_x, box_y), 1e9f));
  const float scale = -0.5f * LOG2_E / determinant;
  r.x = x, r.y = y;
  r.xx = scale * seen.c[lane], r.xy = -2 * scale * seen.b[lane], r.yy = scale * seen.a[lane];
  r.peak = std::log2(opacity);
  std::copy(colour, colour + 3, r.colour);
  r.depth = z;
  r.cap = std::min(OPAQUE, opacity);
  r.reach_x = 1.0001f * extent * spread_x + 1e-3f, r.reach_y = 1.0001f * extent * spread_y + 1e-3f;
  tiles_touched(x, r.reach_x, scene.width, r.tile_x, r.tiles_x);
  tiles_touched(y, r.reach_y, scene.height, r.tile_y, r.tiles_y);
  if (r.tiles_x == 0 || r.tiles_y == 0) r.tiles_x = r.tiles_y = 0;
}

void project_block(const Scene& scene, const Plan& plan, int first) {
  const Splats splats(scene, first);
  const int lanes = std::min(LANES, scene.count - first);
  float extents[LANES];
  for (int lane = 0; lane < lanes; ++lane)
    extents[lane] = extent_of(splats.opacity[lane]);
  for (int view = 0; view < scene.views; ++view) {
    const Seen seen(splats, Lens(scene, view), Ints{} == 0, scene.antialiased);
    for (int lane = 0; lane < lanes; ++lane) {
      const int64_t row = int64_t(view) * scene.count + first + lane;
      const float opacity = splats.opacity[lane] * seen.fade[lane];
      record(scene, seen, lane, opacity, scene.antialiased ? extent_of(opacity) : extents[lane],
             colours_of(scene, view) + 3 * int64_t(first + lane), plan.records[row], plan.radii[row]);
    }
  }
}

// The gradients of one register of splats.
struct Gradients {
  V3 mean = {}, colour = {};
  Floats opacity = {};
  Symmetric covariance = {};

  // Adds the lanes of `more` that a camera drew; what it did not draw may hold anything.
  void add(Ints drawn, const Gradients& more) {
    const auto some = [&](Floats& sum, Floats value) { sum += keep(drawn, value); };
    some(mean.x, more.mean.x), some(mean.y, more.mean.y), some(mean.z, more.mean.z);
    some(colour.x, more.colour.x), some(colour.y, more.colour.y), some(colour.z, more.colour.z);
    some(opacity, more.opacity);
    some(covariance.xx, more.covariance.xx), some(covariance.xy, more.covariance.xy);
    some(covariance.xz, more.covariance.xz), some(covariance.yy, more.covariance.yy);
    some(covariance.yz, more.covariance.yz), some(covariance.zz, more.covariance.zz);
  }

  // Adds what one camera saw: `pair` are the sums over its tiles. Returns the gradient of where they land.
  void add(const Floats* pair, const Splats& splats, const Lens& lens, const Seen& seen, bool antialiased, Floats& d_x,
           Floats& d_y) {
    colour.x += pair[RED], colour.y += pair[GREEN], colour.z += pair[BLUE];
    const Floats d_faded = -pair[S] / larger(splats.opacity * seen.fade, same(FAINTEST));
    opacity += d_faded * seen.fade;
    // The inverse Y = ((k, l), (l, m)) of the covariance; s = k dx^2 / 2 + l dx dy + m dy^2 / 2.
    const Floats k = seen.c / seen.determinant, l = -seen.b / seen.determinant, m = seen.a / seen.determinant;
    d_x = k * pair[SX] + l * pair[SY];
    d_y = l * pair[SX] + m * pair[SY];
    // d covariance = -Y dY Y, with dY = ((SXX, SXY), (SXY, SYY)) / 2.
    const Floats p = k * pair[SXX] + l * pair[SXY], q = k * pair[SXY] + l * pair[SYY];
    const Floats r = l * pair[SXX] + m * pair[SXY], s = l * pair[SXY] + m * pair[SYY];
    Floats d_a = -0.5f * (p * k + q * l), d_b = -0.5f * (p * l + q * m), d_c = -0.5f * (r * l + s * m);
    if (antialiased) add_fade(splats, seen, d_faded, d_a, d_b, d_c);
    add_covariance(seen.t0, seen.t1, d_a, d_b, d_c);
    // dT = 2 D T S, and dJ = dT W^T.
    const V3 d_t0 = {2 * (d_a * seen.u0.x + d_b * seen.u1.x), 2 * (d_a * seen.u0.y + d_b * seen.u1.y),
                     2 * (d_a * seen.u0.z + d_b * seen.u1.z)};
    const V3 d_t1 = {2 * (d_b * seen.u0.x + d_c * seen.u1.x), 2 * (d_b * seen.u0.y + d_c * seen.u1.y),
                     2 * (d_b * seen.u0.z + d_c * seen.u1.z)};
    const Floats d_j00 = dot(lens.world[0], d_t0), d_j02 = dot(lens.world[2], d_t0);
    const Floats d_j11 = dot(lens.world[1], d_t1), d_j12 = dot(lens.world[2], d_t1);
    add_mean(lens, seen, d_x, d_y, d_j00, d_j02, d_j11, d_j12, pair[DEPTH]);
  }

  // fade^2 = sharp / determinant, and d sharp = ((c, -b), (-b, a)) for the covariance without blur.
  static void add_fade(const Splats& splats, const Seen& seen, Floats d_faded, Floats& d_a, Floats& d_b, Floats& d_c) {
    const Floats half = 0.5f * d_faded * splats.opacity * seen.fade;
    const Floats lone = keep(seen.sharp > 0.0f, half / larger(seen.sharp, same(FLATTEST))), both = half / seen.determinant;
    d_a += (seen.c - BLUR) * lone - seen.c * both;
    d_b -= seen.b * (lone - both);
    d_c += (seen.a - BLUR) * lone - seen.a * both;
  }

  // dS = T^T D T.
  void add_covariance(const V3& t0, const V3& t1, Floats d_a, Floats d_b, Floats d_c) {
    const V3 v0 = {d_a * t0.x + d_b * t1.x, d_a * t0.y + d_b * t1.y, d_a * t0.z + d_b * t1.z};
    const V3 v1 = {d_b * t0.x + d_c * t1.x, d_b * t0.y + d_c * t1.y, d_b * t0.z + d_c * t1.z};
    covariance.xx += t0.x * v0.x + t1.x * v1.x;
    covariance.xy += t0.x * v0.y + t1.x * v1.y;
    covariance.xz += t0.x * v0.z + t1.x * v1.z;
    covariance.yy += t0.y * v0.y + t1.y * v1.y;
    covariance.yz += t0.y * v0.z + t1.y * v1.z;
    covariance.zz += t0.z * v0.z + t1.z * v1.z;
  }

  // J = ((fx/z, 0, -fx tx/z^2), (0, fy/z, -fy ty/z^2)), where tx = x, or a constant times z outside the clamps.
  void add_mean(const Lens& lens, const Seen& seen, Floats d_x, Floats d_y, Floats d_j00, Floats d_j02, Floats d_j11, Floats d_j12, Floats d_z) {
    const Floats iz = seen.inverse_z, iz2 = iz * iz;
    const Floats d_tx = -lens.fx * iz2 * d_j02, d_ty = -lens.fy * iz2 * d_j12;
    const V3 d_p = {
        lens.fx * iz * d_x + keep(seen.inside_x, d_tx), lens.fy * iz * d_y + keep(seen.inside_y, d_ty),
        d_z - (lens.fx * seen.px * d_x + lens.fy * seen.py * d_y) * iz2 - (lens.fx * d_j00 + lens.fy * d_j11) * iz2 -
            (choose(seen.inside_x, same(2.0f), same(1.0f)) * d_tx * seen.tx +
             choose(seen.inside_y, same(2.0f), same(1.0f)) * d_ty * seen.ty) * iz};
    const auto& w = lens.world;
    mean.x += w[0][0] * d_p.x + w[1][0] * d_p.y + w[2][0] * d_p.z;
    mean.y += w[0][1] * d_p.x + w[1][1] * d_p.y + w[2][1] * d_p.z;
    mean.z += w[0][2] * d_p.x + w[1][2] * d_p.y + w[2][2] * d_p.z;
  }

  // From the covariance M M^T to scales and quaternion: dM = 2 dS M.
  void shape(const Splats& splats, Floats d_scale[3], Floats d_quat[4]) const {
    Floats d[3][3];                      // of the rotation
    const Floats scales[3] = {splats.scale.x, splats.scale.y, splats.scale.z};
    const auto& m = splats.rotation.m;
    for (int k = 0; k < 3; ++k) {
      const V3 column = covariance * V3{m[0][k], m[1][k], m[2][k]};
      d_scale[k] = 2 * scales[k] * (m[0][k] * column.x + m[1][k] * column.y + m[2][k] * column.z);
      const Floats twice = 2 * scales[k] * scales[k];
      d[0][k] = twice * column.x, d[1][k] = twice * column.y, d[2][k] = twice * column.z;
    }
    splats.turn_back(d, d_quat);
  }
};

void project_block_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int32_t* last_of_tile, int first) {
  const Splats splats(scene, first);
  const int lanes = std::min(LANES, scene.count - first);
  const auto scatter = [&](float* array, int width, int column, Floats value) {
    for (int lane = 0; lane < lanes; ++lane) array[int64_t(first + lane) * width + column] = value[lane];
  };
  const auto scatter_colour = [&](float* array, const V3& d) {
    scatter(array, 3, 0, d.x), scatter(array, 3, 1, d.y), scatter(array, 3, 2, d.z);
  };
  Gradients gradients;
  Ints ever = {};
  for (int view = 0; view < scene.views; ++view) {
    const int64_t offset = int64_t(view) * scene.count;
    Floats pair[SUMS], d_x = {}, d_y = {};
    const Ints drawn = sum_pairs<NORMAL_X, SUMS>(scene, plan, picture, last_of_tile, view, first, sums_per_pair(scene), pair);
    const Lens lens(scene, view);
    const Seen seen(splats, lens, drawn, scene.antialiased);
    Gradients here;
    here.add(pair, splats, lens, seen, scene.antialiased, d_x, d_y);
    gradients.add(drawn, here);
    ever |= drawn;
    scatter(picture.d_means2d + 2 * offset, 2, 0, keep(drawn, d_x));
    scatter(picture.d_means2d + 2 * offset, 2, 1, keep(drawn, d_y));
    if (picture.d_means2d_absolute) {
      scatter(picture.d_means2d_absolute + 2 * offset, 2, 0, pair[SIZE_X] / LOG2_E);
      scatter(picture.d_means2d_absolute + 2 * offset, 2, 1, pair[SIZE_Y] / LOG2_E);
    }
    if (scene.normals)
      scatter_colour(picture.d_normals + 3 * offset, {pair[NORMAL_X], pair[NORMAL_Y], pair[NORMAL_Z]});
    if (scene.colours_per_view) scatter_colour(picture.d_colours + 3 * offset, {pair[RED], pair[GREEN], pair[BLUE]});
  }
  if (!scene.colours_per_view) scatter_colour(picture.d_colours, gradients.colour);
  Floats d_scale[3], d_quat[4];
  gradients.shape(splats, d_scale, d_quat);
  scatter_colour(picture.d_means, gradients.mean);
  for (int k = 0; k < 3; ++k) scatter(picture.d_scales, 3, k, keep(ever, d_scale[k]));
  for (int k = 0; k < 4; ++k) scatter(picture.d_quats, 4, k, keep(ever, d_quat[k]));
  scatter(picture.d_opacities, 1, 0, gradients.opacity);
}

}  // namespace

void project(const Scene& scene, const Plan& plan) {
#pragma omp parallel for schedule(static) num_threads(scene.threads) if (scene.threads > 1)
  for (int first = 0; first < scene.count; first += LANES) project_block(scene, plan, first);
}

void project_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int32_t* last_of_tile) {
#pragma omp parallel for schedule(static) num_threads(scene.threads) if (scene.threads > 1)
  for (int first = 0; first < scene.count; first += LANES) project_block_backward(scene, plan, picture, last_of_tile, first);
}

}  // namespace sds3d
