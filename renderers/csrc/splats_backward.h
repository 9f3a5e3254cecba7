// The way back from the gradients of pixels to sums for each pair of splat and tile, front to back as well.
//
// With v the gradient of a pixel's colour C and u that of its alpha, and the notation of splats_draw.h,
//   dL/da_i = T_i (c_i . v) - R_i / (1 - a_i),   R_i = C . v - T_end u - sum over j <= i of w_j (c_j . v),
// so nothing but the running R has to be known from the forward pass.
#pragma once
#include "splats_blocks.h"

namespace sds3d {
namespace {

// What is known of the pixels of a tile.
template <int CHANNELS>
struct Pixels {
  alignas(64) float through[PIXELS];
  alignas(64) float rest[PIXELS];             // R of the header
  alignas(64) float d_layers[CHANNELS][PIXELS];

  uint32_t load_gradients(const Scene& scene, const Picture& picture, const Tile& tile) {
    if (tile.columns < TILE || tile.rows < TILE) {
      std::memset(rest, 0, sizeof rest);
      std::memset(d_layers, 0, sizeof d_layers);
    }
    const auto normals = [&](int place, int64_t pixel) {
      float sum = 0;
      for (int k = 4; k < CHANNELS; ++k) {
        const float d = picture.d_normal[3 * pixel + k - 4];
        d_layers[k][place] = d, sum += d * picture.normal[3 * pixel + k - 4];
      }
      return sum;
    };
    const auto one = [&](int place, int64_t pixel) {
      float sum = (picture.alpha[pixel] - 1.0f) * picture.d_alpha[pixel];
      for (int k = 0; k < 4; ++k) {
        const float d = picture.d_colour[4 * pixel + k];
        d_layers[k][place] = d, sum += d * picture.colour[4 * pixel + k];
      }
      rest[place] = sum + normals(place, pixel);
    };
    const auto four = [&](int place, int64_t pixel) {
      Four d[4], colour[4], sum = (load_four(picture.alpha + pixel) - 1.0f) * load_four(picture.d_alpha + pixel);
      for (int k = 0; k < 4; ++k) {
        d[k] = load_four(picture.d_colour + 4 * (pixel + k));
        colour[k] = load_four(picture.colour + 4 * (pixel + k));
      }
      transpose(d), transpose(colour);
      for (int k = 0; k < 4; ++k) store_four(d_layers[k] + place, d[k]), sum += d[k] * colour[k];
      if constexpr (CHANNELS > 4)
        sum += Four{normals(place, pixel), normals(place + 1, pixel + 1), normals(place + 2, pixel + 2),
                    normals(place + 3, pixel + 3)};
      store_four(rest + place, sum);
    };
    tile.each_pixel(scene, four, one);
    return tile.open(through);
  }

  // Lets a splat pass over the register of pixels at `at`. Adds to the gradients of its features, and to `open` a bit
  // for each pixel that is; returns the gradient of the exponent s. `more`: what else a weight adds to the loss.
  template <class Splat, class More>
  Floats take(const Splat& s, Floats alpha, int at, Floats* of_features, uint32_t& open, More more) {
    const Passing p(through + at, alpha);
    open |= above(p.after, FINISHED);
    Floats toward = more(p);
    for (int k = 0; k < CHANNELS; ++k) {
      const Floats d = load(d_layers[k] + at);
      toward += s.feature[k] * d;
      of_features[k] += p.weight * d;
    }
    const Floats pulled = p.weight * toward, behind = load(rest + at) - pulled;
    store(rest + at, behind);
    return keep(p.drawn & (alpha < OPAQUE), alpha * (behind / (1.0f - alpha)) - pulled);
  }
};

// Walks a tile for one kind of splat. A Kind says: what it reads of a splat (Splat), what it knows of a tile's pixels
// (Pixels), what it sums up over them (Moments, with `store_sums`), how many sums that are (sums), and how a splat adds
// those of one block (take, which returns whether a pixel is left open). Returns the last turn whose sums were written,
// -1 for none: those behind it add nothing.
template <class Kind>
int64_t tile_backward(const Scene& scene, const Plan& plan, const Picture& picture, int64_t index) {
  const Tile tile(scene, plan, index);
  typename Kind::Pixels pixels;
  uint32_t open = pixels.load_gradients(scene, picture, tile);
  const int32_t last = each_splat(plan, tile, open, [&](int32_t row, uint32_t blocks) {
    const Record& r = plan.records[row];
    const int pair = r.first_pair + (tile.y / TILE - r.tile_y) * r.tiles_x + tile.x / TILE - r.tile_x;
    float* to = picture.pair_sums + int64_t(Kind::sums) * pair;
    if (!blocks) {
      std::memset(to, 0, Kind::sums * sizeof(float));
      return;
    }
    const typename Kind::Splat splat(scene, plan, tile, row);
    typename Kind::Moments moments = {};
    for (; blocks; blocks &= blocks - 1) {
      const int block = __builtin_ctz(blocks);
      if (!Kind::take(splat, pixels, block, moments)) open &= ~(1u << block);
    }
    moments.store_sums(to);
  });
  return last < 0 ? -1 : turn_of(plan.records[last], last);
}

}  // namespace
}  // namespace sds3d
