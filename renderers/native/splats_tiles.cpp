// Which splats touch which tile, nearest first.
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "splats.h"

namespace sds3d {
namespace {

struct Keyed {
  uint32_t key;
  int32_t row;
  int16_t x, y, across, down;          // its rectangle of tiles
};

// Stable, ascending; three passes of eleven bits.
void radix_sort(std::vector<Keyed>& items) {
  constexpr int BITS = 11, BUCKETS = 1 << BITS;
  std::vector<Keyed> other(items.size());
  std::vector<int32_t> counts(BUCKETS);
  for (int shift = 0; shift < 32; shift += BITS) {
    std::fill(counts.begin(), counts.end(), 0);
    for (const Keyed& item : items) ++counts[(item.key >> shift) & (BUCKETS - 1)];
    int32_t total = 0;
    for (int32_t& count : counts) total += std::exchange(count, total);
    for (const Keyed& item : items) other[counts[(item.key >> shift) & (BUCKETS - 1)]++] = item;
    items.swap(other);
  }
}

// The tiles of one picture from row `top` to before `bottom`; lists do not depend on how a picture is cut into parts.
void sort_part(const Scene& scene, const Plan& plan, int view, int top, int bottom) {
  const int across = tiles_across(scene), tiles = across * tiles_down(scene);
  const int32_t first_row = view * scene.count;
  int32_t total = scene.count > 0 ? plan.records[first_row].first_pair : 0;
  std::vector<Keyed> items;
  items.reserve(scene.count);
  std::vector<int32_t> next((bottom - top) * across);    // first how many pairs a tile has, then where its next one goes
  for (int32_t row = first_row; row < first_row + scene.count; ++row) {
    const Record& r = plan.records[row];
    const int end = r.tile_y + r.tiles_y, from = std::max<int>(r.tile_y, top), to = std::min(end, bottom);
    if (r.tiles_x == 0) continue;
    total += r.tiles_x * (std::min(end, top) - std::min<int>(r.tile_y, top));
    if (from >= to) continue;
    uint32_t key;                      // the bits of positive floats sort as the floats do
    std::memcpy(&key, &r.depth, sizeof key);
    items.push_back({key, row, r.tile_x, int16_t(from - top), r.tiles_x, int16_t(to - from)});
    for (int y = from - top; y < to - top; ++y)
      for (int x = r.tile_x; x < r.tile_x + r.tiles_x; ++x) ++next[y * across + x];
  }
  int32_t* starts = plan.starts + int64_t(view) * tiles + int64_t(top) * across;
  for (size_t tile = 0; tile < next.size(); ++tile) {
    starts[tile] = total;
    total += std::exchange(next[tile], total);
  }
  if (view == scene.views - 1 && bottom == tiles_down(scene)) starts[next.size()] = total;
  radix_sort(items);
  for (const Keyed& item : items)
    for (int y = item.y; y < item.y + item.down; ++y)
      for (int x = item.x; x < item.x + item.across; ++x) plan.pairs[next[y * across + x]++] = item.row;
}

}  // namespace

int64_t number_pairs(const Scene& scene, const Plan& plan) {
  int64_t total = 0;
  const int64_t rows = int64_t(scene.views) * scene.count;
  for (int64_t row = 0; row < rows; ++row) {
    Record& r = plan.records[row];
    r.first_pair = int32_t(total);
    total += int64_t(r.tiles_x) * r.tiles_y;
  }
  return total;
}

void sort_into_tiles(const Scene& scene, const Plan& plan) {
  if (scene.views == 0) plan.starts[0] = 0;
  // Where the threads cannot share the pictures evenly, they share each of them.
  const int down = tiles_down(scene), parts = scene.views % scene.threads ? std::min(scene.threads, down) : 1;
#pragma omp parallel for schedule(dynamic) num_threads(scene.threads) if (scene.threads > 1)
  for (int job = 0; job < scene.views * parts; ++job) {
    const int part = job % parts;
    sort_part(scene, plan, job / parts, down * part / parts, down * (part + 1) / parts);
  }
}

}  // namespace sds3d
