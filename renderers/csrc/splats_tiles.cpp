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
  int32_t place;                       // in the list of rectangles
};

struct Rectangle {                     // of tiles
  int32_t row;                         // of `records`
  int16_t x, y, across, down;
};

// Memory that a thread keeps for its next call: to get fresh pages takes as long as to sort.
struct Kept {
  std::vector<Keyed> items, other;
  std::vector<Rectangle> rectangles;

  void hold(size_t count) {
    if (items.size() < count) items.resize(count), other.resize(count), rectangles.resize(count);
  }
  void let_go() {
    constexpr size_t MOST = 1 << 18;   // splats
    if (items.size() > MOST) *this = Kept();
  }
};

// Stable, ascending; in as few passes as the keys leave bits to tell them apart. Returns where the sorted items are.
const Keyed* radix_sort(Keyed* items, Keyed* other, int count, uint32_t lowest, uint32_t highest) {
  constexpr int MOST_BITS = 12;
  int bits = 0;
  while (bits < 32 && (highest - lowest) >> bits) ++bits;
  const int passes = (bits + MOST_BITS - 1) / MOST_BITS, width = passes ? (bits + passes - 1) / passes : 0;
  const uint32_t mask = (1u << width) - 1;
  int32_t counts[1 << MOST_BITS];
  for (int pass = 0, shift = 0; pass < passes; ++pass, shift += width) {
    std::fill(counts, counts + mask + 1, 0);
    for (int i = 0; i < count; ++i) ++counts[((items[i].key - lowest) >> shift) & mask];
    int32_t total = 0;
    for (uint32_t k = 0; k <= mask; ++k) total += std::exchange(counts[k], total);
    for (int i = 0; i < count; ++i) other[counts[((items[i].key - lowest) >> shift) & mask]++] = items[i];
    std::swap(items, other);
  }
  return items;
}

// The tiles of one picture from row `top` to before `bottom`; lists do not depend on how a picture is cut into parts.
void sort_part(const Scene& scene, const Plan& plan, int view, int top, int bottom, Kept& kept) {
  const int across = tiles_across(scene), tiles = across * tiles_down(scene);
  const int32_t first_row = view * scene.count;
  int32_t total = scene.count > 0 ? plan.records[first_row].first_pair : 0;
  kept.hold(scene.count);
  Keyed* items = kept.items.data();
  Rectangle* rectangles = kept.rectangles.data();
  int count = 0;
  uint32_t lowest = ~0u, highest = 0;
  // How many splats more a tile has than those before it: rectangles change that at their corners only.
  const int wide = across + 1, high = bottom - top;
  std::vector<int32_t> next(wide * (high + 1));
  for (int32_t row = first_row; row < first_row + scene.count; ++row) {
    const Record& r = plan.records[row];
    const int end = r.tile_y + r.tiles_y, from = std::max<int>(r.tile_y, top), to = std::min(end, bottom);
    if (r.tiles_x == 0) continue;
    total += r.tiles_x * (std::min(end, top) - std::min<int>(r.tile_y, top));
    if (from >= to) continue;
    uint32_t key;                      // the bits of positive floats sort as the floats do
    std::memcpy(&key, &r.depth, sizeof key);
    lowest = std::min(lowest, key), highest = std::max(highest, key);
    items[count] = {key, count};
    rectangles[count++] = {row, r.tile_x, int16_t(from - top), r.tiles_x, int16_t(to - from)};
    int32_t* corner = next.data() + (from - top) * wide + r.tile_x;
    ++corner[0], --corner[r.tiles_x];
    corner += (to - from) * wide;
    --corner[0], ++corner[r.tiles_x];
  }
  int32_t* starts = plan.starts + int64_t(view) * tiles + int64_t(top) * across;
  std::vector<int32_t> column(across);                   // how many the tile above has
  for (int y = 0; y < high; ++y)
    for (int x = 0, sum = 0; x < across; ++x) {
      sum += next[y * wide + x];
      column[x] += sum;
      *starts++ = next[y * wide + x] = total;            // from now on, where its next one goes
      total += column[x];
    }
  if (view == scene.views - 1 && bottom == tiles_down(scene)) *starts = total;
  const Keyed* sorted = radix_sort(items, kept.other.data(), count, lowest, count ? highest : lowest);
  for (int i = 0; i < count; ++i) {
    const Rectangle& r = rectangles[sorted[i].place];
    int32_t* tile = next.data() + r.y * wide + r.x;
    for (int left = r.across * r.down, x = r.across; left > 0; --left) {
      plan.pairs[(*tile)++] = r.row;
      const bool last = --x == 0;      // of its row of tiles
      tile += last ? wide - r.across + 1 : 1;
      x = last ? r.across : x;
    }
  }
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
    thread_local Kept kept;
    const int part = job % parts;
    sort_part(scene, plan, job / parts, down * part / parts, down * (part + 1) / parts, kept);
    kept.let_go();
  }
}

}  // namespace sds3d
