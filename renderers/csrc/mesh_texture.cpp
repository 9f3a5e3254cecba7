// Textures: halved again and again, looked up between texels and between halvings, and the way back.
#include <algorithm>
#include <cmath>

#include "mesh.h"

namespace sds3d {
namespace {

int64_t side_of(const Texture& texture, int64_t level) { return texture.size >> level; }

int64_t start_of(const Texture& texture, int64_t level) {
  int64_t start = 0;
  for (int64_t k = 0; k < level; ++k) start += side_of(texture, k) * side_of(texture, k);
  return start * texture.channels;
}

// Every level but the first: the mean of four texels of the one before.
void halve(const Texture& texture) {
  const int64_t channels = texture.channels;
  for (int64_t level = 1; level < texture.levels; ++level) {
    const float* from = texture.texels + start_of(texture, level - 1);
    float* to = texture.texels + start_of(texture, level);
    const int64_t side = side_of(texture, level), row = 2 * side * channels;
#pragma omp parallel for num_threads(texture.threads) if (texture.threads > 1)
    for (int64_t i = 0; i < side; ++i)
      for (int64_t j = 0; j < side; ++j) {
        const float *a = from + 2 * i * row + 2 * j * channels, *b = a + row;
        for (int64_t k = 0; k < channels; ++k)
          to[(i * side + j) * channels + k] = 0.25f * ((a[k] + a[channels + k]) + (b[k] + b[channels + k]));
      }
  }
}

void halve_backward(const Texture& texture) {
  const int64_t channels = texture.channels;
  for (int64_t level = texture.levels - 1; level > 0; --level) {
    const float* from = texture.d_texels + start_of(texture, level);
    float* to = texture.d_texels + start_of(texture, level - 1);
    const int64_t side = side_of(texture, level), row = 2 * side * channels;
#pragma omp parallel for num_threads(texture.threads) if (texture.threads > 1)
    for (int64_t i = 0; i < side; ++i)
      for (int64_t j = 0; j < side; ++j) {
        float *a = to + 2 * i * row + 2 * j * channels, *b = a + row;
        for (int64_t k = 0; k < channels; ++k) {
          const float quarter = 0.25f * from[(i * side + j) * channels + k];
          a[k] += quarter, a[channels + k] += quarter, b[k] += quarter, b[channels + k] += quarter;
        }
      }
  }
}

// The four texels around a place in one level.
struct Around {
  int64_t at[4];           // offsets of upper left, upper right, lower left, lower right
  float right, down;       // shares of the right and the lower ones
  float moves_x, moves_y;  // texels per unit of the place; 0 where the border is repeated
};

Around around(const Texture& texture, const float* place, int64_t level) {
  const int64_t side = side_of(texture, level), start = start_of(texture, level);
  const float most = static_cast<float>(side - 1), scale = static_cast<float>(side);
  const float x = place[0] * scale - 0.5f, y = place[1] * scale - 0.5f;
  const bool inside_x = x > 0 && x < most, inside_y = y > 0 && y < most;  // false for what is not a number
  const float cx = inside_x ? x : (x >= most ? most : 0), cy = inside_y ? y : (y >= most ? most : 0);
  const int64_t j = static_cast<int64_t>(cx), i = static_cast<int64_t>(cy);
  const int64_t right = std::min(j + 1, side - 1), below = std::min(i + 1, side - 1);
  const int64_t c = texture.channels;
  return {{start + (i * side + j) * c, start + (i * side + right) * c, start + (below * side + j) * c,
           start + (below * side + right) * c},
          cx - static_cast<float>(j),
          cy - static_cast<float>(i),
          inside_x ? scale : 0,
          inside_y ? scale : 0};
}

// The level below a detail and the share of the one above.
int64_t levels_at(const Texture& texture, float detail, float* share) {
  const float most = static_cast<float>(texture.levels - 1);
  const float level = detail > 0 ? std::min(detail, most) : 0;
  const int64_t below = std::min(static_cast<int64_t>(level), texture.levels - 1);
  *share = level - static_cast<float>(below);
  return below;
}

void look_up(const Texture& texture, int64_t n) {
  const int64_t channels = texture.channels;
  float* to = texture.values + n * channels;
  std::fill(to, to + channels, 0.0f);
  if (!texture.wanted[n]) return;
  float share;
  const int64_t below = levels_at(texture, texture.detail[n], &share);
  for (int64_t level = below; level <= below + (share > 0); ++level) {
    const Around a = around(texture, texture.places + 2 * n, level);
    const float whole = level == below ? 1 - share : share;
    const float w[4] = {whole * (1 - a.right) * (1 - a.down), whole * a.right * (1 - a.down),
                        whole * (1 - a.right) * a.down, whole * a.right * a.down};
    for (int64_t k = 0; k < channels; ++k)
      to[k] += w[0] * texture.texels[a.at[0] + k] + w[1] * texture.texels[a.at[1] + k] +
               w[2] * texture.texels[a.at[2] + k] + w[3] * texture.texels[a.at[3] + k];
  }
}

void look_up_backward(const Texture& texture, int64_t n) {
  const int64_t channels = texture.channels;
  if (texture.d_places) texture.d_places[2 * n] = texture.d_places[2 * n + 1] = 0;
  if (!texture.wanted[n]) return;
  const float* g = texture.d_values + n * channels;
  float share;
  const int64_t below = levels_at(texture, texture.detail[n], &share);
  for (int64_t level = below; level <= below + (share > 0); ++level) {
    const Around a = around(texture, texture.places + 2 * n, level);
    const float whole = level == below ? 1 - share : share;
    const float w[4] = {whole * (1 - a.right) * (1 - a.down), whole * a.right * (1 - a.down),
                        whole * (1 - a.right) * a.down, whole * a.right * a.down};
    float across = 0, along = 0;
    for (int64_t k = 0; k < channels; ++k) {
      for (int t = 0; t < 4; ++t) texture.d_texels[a.at[t] + k] += w[t] * g[k];
      const float* from = texture.texels + k;
      across += g[k] * ((1 - a.down) * (from[a.at[1]] - from[a.at[0]]) + a.down * (from[a.at[3]] - from[a.at[2]]));
      along += g[k] * ((1 - a.right) * (from[a.at[2]] - from[a.at[0]]) + a.right * (from[a.at[3]] - from[a.at[1]]));
    }
    if (!texture.d_places) continue;
    texture.d_places[2 * n] += whole * a.moves_x * across;
    texture.d_places[2 * n + 1] += whole * a.moves_y * along;
  }
}

}  // namespace

void look_up_all(const Texture& texture) {
  halve(texture);
#pragma omp parallel for num_threads(texture.threads) if (texture.threads > 1)
  for (int64_t n = 0; n < texture.count; ++n) look_up(texture, n);
}

// One after the other: many places share texels, and sums have to keep their order.
void look_up_all_backward(const Texture& texture) {
  for (int64_t n = 0; n < texture.count; ++n) look_up_backward(texture, n);
  halve_backward(texture);
}

}  // namespace sds3d
