// Pictures of Gaussian splats, forward only: what the embedded prior expects to see.
//
// One picture is one thread's work. Splats are projected, sorted from near to far and laid one after another over the
// pixels of their boxes. The conventions and constants are those of guidance/priors/mini3d/splat_rendering.py, its plain torch twin.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr float BLUR = 0.3f, FAINTEST = 1.0f / 255.0f, OPAQUE = 0.999f, FINISHED = 1e-4f, WIDEST = 3.33f, NEAR = 0.01f;

struct Splat {
  float depth, x, y, xx, xy, yy, opacity;
  int left, right, top, bottom, number;
};

// e^-power for power >= 0: 2^n by the exponent's bits, the rest by a polynomial; 2e-7 relative.
inline float decay(float power) {
  const float scaled = -power * 1.44269504f, y = scaled > -126.0f ? scaled : -126.0f;
  const int32_t whole = static_cast<int32_t>(y - 0.5f);  // towards zero: y is not above 0 where it counts
  const float f = y - static_cast<float>(whole);
  const float p = 1.0f + f * (0.693147180f + f * (0.240226507f + f * (0.0555041087f + f * (0.00961812911f +
                  f * (0.00133335581f + f * 0.000154353f)))));
  const int32_t bits = (whole + 127) << 23;
  float power2;
  __builtin_memcpy(&power2, &bits, sizeof bits);
  return p * power2;
}

bool project(const float* mean, const float* cov, float opacity, const float* view, float focal, int size, Splat& out) {
  const float half = 0.5f * size;
  const float x = view[0] * mean[0] + view[1] * mean[1] + view[2] * mean[2] + view[3];
  const float y = view[4] * mean[0] + view[5] * mean[1] + view[6] * mean[2] + view[7];
  const float z = view[8] * mean[0] + view[9] * mean[1] + view[10] * mean[2] + view[11];
  if (!(z >= NEAR) || !(opacity >= FAINTEST)) return false;
  // Rows of the Jacobian times the turn into the camera.
  float u[3], v[3];
  for (int i = 0; i < 3; ++i) {
    u[i] = focal / z * (view[i] - x / z * view[8 + i]);
    v[i] = focal / z * (view[4 + i] - y / z * view[8 + i]);
  }
  float cu[3], cv[3];
  for (int i = 0; i < 3; ++i) {
    cu[i] = cov[3 * i] * u[0] + cov[3 * i + 1] * u[1] + cov[3 * i + 2] * u[2];
    cv[i] = cov[3 * i] * v[0] + cov[3 * i + 1] * v[1] + cov[3 * i + 2] * v[2];
  }
  const float a = u[0] * cu[0] + u[1] * cu[1] + u[2] * cu[2] + BLUR;
  const float b = u[0] * cv[0] + u[1] * cv[1] + u[2] * cv[2];
  const float c = v[0] * cv[0] + v[1] * cv[1] + v[2] * cv[2] + BLUR;
  const float determinant = a * c - b * b;
  if (!(determinant > 0)) return false;
  out = {z, focal * x / z + half, focal * y / z + half, c / determinant, -b / determinant, a / determinant, opacity,
         0, 0, 0, 0, 0};
  const float extent = std::min(WIDEST, std::sqrt(2.0f * std::log(opacity / FAINTEST)));
  const float across = std::ceil(extent * std::sqrt(a)), down = std::ceil(extent * std::sqrt(c));
  const auto inside = [size](float place) { return static_cast<int>(std::min(std::max(place, 0.0f), float(size))); };
  out.left = inside(std::floor(out.x - across)), out.right = inside(std::ceil(out.x + across));
  out.top = inside(std::floor(out.y - down)), out.bottom = inside(std::ceil(out.y + down));
  return out.left < out.right && out.top < out.bottom;
}

// One splat over one row of pixels.
inline void lay(int left, int right, float x, float xx, float xydy, float yydy, float opacity, float r, float g, float b,
                float* __restrict through, float* __restrict red, float* __restrict green, float* __restrict blue,
                float* __restrict alpha) {
#pragma omp simd
  for (int column = left; column < right; ++column) {
    const float dx = x - (column + 0.5f);
    const float power = 0.5f * (xx * dx * dx + yydy) + xydy * dx;
    float a = opacity * decay(power);
    a = a < OPAQUE ? a : OPAQUE;
    a = a >= FAINTEST ? a : 0.0f;
    a = power >= 0.0f ? a : 0.0f;
    const float before = through[column], after = before * (1.0f - a);
    // Once a pixel is finished it stays so: a splat that would close it is not drawn, nor is any behind it.
    const float weight = after > FINISHED ? a * before : 0.0f;
    through[column] = after > FINISHED ? after : 0.0f;
    red[column] += weight * r;
    green[column] += weight * g;
    blue[column] += weight * b;
    alpha[column] += weight;
  }
}

}  // namespace

// pictures [B, 4, size, size]: colour times alpha, and alpha. Picture b shows the splats starts[b] up to ends[b].
// means [N, 3], covariances [N, 9], opacities [N], colours [B's splats: N, 3], views [B, 12] world to camera (x right,
// y down, z ahead).
extern "C" void prior_splats(int64_t pictures, int64_t size, float focal, const int64_t* starts, const int64_t* ends,
                             const float* means, const float* covariances, const float* opacities,
                             const float* colours, const float* views, float* out) {
#pragma omp parallel for schedule(dynamic)
  for (int64_t b = 0; b < pictures; ++b) {
    std::vector<Splat> seen;
    seen.reserve(ends[b] - starts[b]);
    for (int64_t n = starts[b]; n < ends[b]; ++n) {
      Splat splat;
      if (project(means + 3 * n, covariances + 9 * n, opacities[n], views + 12 * b, focal, size, splat)) {
        splat.number = static_cast<int>(n);
        seen.push_back(splat);
      }
    }
    std::stable_sort(seen.begin(), seen.end(), [](const Splat& p, const Splat& q) { return p.depth < q.depth; });
    const int64_t plane = size * size;
    float *red = out + 4 * plane * b, *green = red + plane, *blue = green + plane, *alpha = blue + plane;
    std::vector<float> through(plane, 1.0f);
    for (const Splat& s : seen) {
      const float reach = std::log(s.opacity / FAINTEST);
      const float r = colours[3 * s.number], g = colours[3 * s.number + 1], bl = colours[3 * s.number + 2];
      for (int row = s.top; row < s.bottom; ++row) {
        const float dy = s.y - (row + 0.5f);
        const int64_t line = row * size;
        // The columns where alpha is at least FAINTEST, from the quadratic in dx, and a little more.
        const float middle = s.xy * dy / s.xx, most = 2.0f * (reach - 0.5f * s.yy * dy * dy) / s.xx + middle * middle;
        if (!(most >= 0.0f)) continue;
        const float wide = std::sqrt(most) + 0.51f, centre = s.x + middle;
        const int left = std::max(s.left, static_cast<int>(std::floor(centre - wide)));
        const int right = std::min(s.right, static_cast<int>(std::ceil(centre + wide)));
        lay(left, right, s.x, s.xx, s.xy * dy, s.yy * dy * dy, s.opacity, r, g, bl, &through[line], red + line,
            green + line, blue + line, alpha + line);
      }
    }
  }
}
