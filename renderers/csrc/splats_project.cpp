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

// The tiles that pixels with centres within `reach` of `centre` lie in: the first, and how many; 0 and 0 for none.
void tiles_touched(Floats centre, Floats reach, int pixels, Ints& first, Ints& number) {
  const Floats low = larger(ceiling(centre - reach - 0.5f), Floats{});
  const Floats high = smaller(-ceiling(0.5f - centre - reach), same(float(pixels - 1)));
  const Ints any = low <= high;
  first = __builtin_convertvector(keep(any, low), Ints) / TILE;
  number = (__builtin_convertvector(keep(any, high), Ints) / TILE - first + 1) & any;
}

// What one camera sees of a register of splats: `records` and `radii` of the rows from `first`.
void record(const Scene& scene, const Seen& seen, Floats opacity, const Floats* colour, int first, Record* records,
            int32_t* radii) {
  const Floats peak = log_two(opacity), a = seen.a, b = seen.b, c = seen.c;
  // Half the width of what is drawn, in standard deviations: there alpha is FAINTEST.
  constexpr float LN_4 = 1.38629436f, FAINTEST_LOG2 = -7.99435344f;
  const Floats extent = smaller(root(LN_4 * larger(peak - FAINTEST_LOG2, Floats{})), same(WIDEST));
  const Floats spread_x = root(a), spread_y = root(c);
  const Floats box_x = ceiling(extent * spread_x), box_y = ceiling(extent * spread_y);
  Ints drawn = (seen.z >= NEAR) & (seen.z <= FAR) & (seen.determinant > 0.0f) & (seen.determinant <= LARGEST) &
               (opacity >= FAINTEST);    // none of them for NaN
  drawn &= ((box_x > 0.0f) | (box_y > 0.0f)) & (seen.x + box_x > 0.0f) & (seen.x - box_x < float(scene.width)) &
           (seen.y + box_y > 0.0f) & (seen.y - box_y < float(scene.height));
  Ints tile_x, tile_y, tiles_x, tiles_y;
  tiles_touched(seen.x, 1.0001f * extent * spread_x + 1e-3f, scene.width, tile_x, tiles_x);
  tiles_touched(seen.y, 1.0001f * extent * spread_y + 1e-3f, scene.height, tile_y, tiles_y);
  const Ints some = (tiles_x > 0) & (tiles_y > 0);
  const Floats ux = ROOT * root(c / seen.determinant);
  Floats columns[sizeof(Record) / sizeof(float)] = {
      seen.x, seen.y, ux, -ux * b / c, ROOT / spread_y, peak, colour[0], colour[1], colour[2], seen.z, b / c, b / a,
      Floats{}, (Floats)(tile_x | tile_y << 16), (Floats)((tiles_x | tiles_y << 16) & some),
      smaller(opacity, same(OPAQUE))};
  for (Floats& column : columns) column = keep(drawn, column);
  write_rows<sizeof(Record) / sizeof(float)>(reinterpret_cast<float*>(records), first, scene.count, columns);
  const Floats radius = keep(drawn, smaller(larger(box_x, box_y), same(1e9f)));
  const Floats whole = (Floats)__builtin_convertvector(radius, Ints);
  write_rows<1>(reinterpret_cast<float*>(radii), first, scene.count, &whole);
}

void project_block(const Scene& scene, const Plan& plan, int first) {
  const Splats splats(scene, first);
  for (int view = 0; view < scene.views; ++view) {
    const Seen seen(splats, Lens(scene, view), Ints{} == 0, scene.antialiased);
    Floats colour[3];
    read_rows<3>(colours_of(scene, view), first, scene.count, colour);
    const int64_t rows = int64_t(view) * scene.count;
    record(scene, seen, splats.opacity * seen.fade, colour, first, plan.records + rows, plan.radii + rows);
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
    // s = (u^2 + v^2) / (2 ROOT^2), with the rows (ux, uy) and (0, vy) of L: d covariance = -L^T dM L for the moments
    // dM = ((SUU, SUV), (SUV, SVV)) / 2, all in units of ROOT.
    const Floats ux = root(seen.c / seen.determinant), uy = -ux * seen.b / seen.c, vy = 1.0f / root(seen.c);
    d_x = ux * pair[SU] / ROOT;
    d_y = (uy * pair[SU] + vy * pair[SV]) / ROOT;
    const Floats p = ux * pair[SUU], q = ux * pair[SUV];
    const Floats r = uy * pair[SUU] + vy * pair[SUV], s = uy * pair[SUV] + vy * pair[SVV];
    constexpr float HALF = -0.5f / (ROOT * ROOT);
    Floats d_a = HALF * (p * ux), d_b = HALF * (p * uy + q * vy), d_c = HALF * (r * uy + s * vy);
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

void project_block_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int64_t* last_of_tile, int first) {
  const Splats splats(scene, first);
  const auto write_three = [&](float* array, const V3& d) {
    const Floats columns[3] = {d.x, d.y, d.z};
    write_rows<3>(array, first, scene.count, columns);
  };
  Gradients gradients;
  Ints ever = {};
  for (int view = 0; view < scene.views; ++view) {
    const int64_t offset = int64_t(view) * scene.count;
    Floats pair[SUMS], d_x = {}, d_y = {};
    const auto sum = scene.normals ? sum_pairs<SUMS> : sum_pairs<NORMAL_X>;
    const Ints drawn = sum(scene, plan, picture, last_of_tile, view, first, pair);
    const Lens lens(scene, view);
    const Seen seen(splats, lens, drawn, scene.antialiased);
    Gradients here;
    here.add(pair, splats, lens, seen, scene.antialiased, d_x, d_y);
    gradients.add(drawn, here);
    ever |= drawn;
    const Floats d_place[2] = {keep(drawn, d_x), keep(drawn, d_y)};
    write_rows<2>(picture.d_means2d + 2 * offset, first, scene.count, d_place);
    if (picture.d_means2d_absolute) {
      const Floats sizes[2] = {pair[SIZE_X] / LOG2_E, pair[SIZE_Y] / LOG2_E};
      write_rows<2>(picture.d_means2d_absolute + 2 * offset, first, scene.count, sizes);
    }
    if (scene.normals)
      write_three(picture.d_normals + 3 * offset, {pair[NORMAL_X], pair[NORMAL_Y], pair[NORMAL_Z]});
    if (scene.colours_per_view) write_three(picture.d_colours + 3 * offset, {pair[RED], pair[GREEN], pair[BLUE]});
  }
  if (!scene.colours_per_view) write_three(picture.d_colours, gradients.colour);
  Floats d_scale[3], d_quat[4];
  gradients.shape(splats, d_scale, d_quat);
  write_three(picture.d_means, gradients.mean);
  for (Floats& d : d_scale) d = keep(ever, d);
  write_rows<3>(picture.d_scales, first, scene.count, d_scale);
  for (Floats& d : d_quat) d = keep(ever, d);
  write_rows<4>(picture.d_quats, first, scene.count, d_quat);
  write_rows<1>(picture.d_opacities, first, scene.count, &gradients.opacity);
}

}  // namespace

void project(const Scene& scene, const Plan& plan) {
#pragma omp parallel for schedule(static) num_threads(scene.threads) if (scene.threads > 1)
  for (int first = 0; first < scene.count; first += LANES) project_block(scene, plan, first);
}

void project_backward(const Scene& scene, const Plan& plan, const Picture& picture, const int64_t* last_of_tile) {
#pragma omp parallel for schedule(static) num_threads(scene.threads) if (scene.threads > 1)
  for (int first = 0; first < scene.count; first += LANES) project_block_backward(scene, plan, picture, last_of_tile, first);
}

}  // namespace sds3d
