// Features of points from hash tables at several resolutions (Mueller et al. 2022), and the way back to the tables.
//
// Where the corners of a level's grid fit into its table each has an entry of its own, x fastest, else they share
// entries by the hash x ^ 2654435761 y ^ 805459861 z. The two corners of an edge along x are worked on together: their
// four numbers fill a register, and where entries are shared they never share the same one, as the lowest bits differ.
// Gradients are summed in the order of the points.

#include "hashed.h"

namespace sds3d {
namespace {

typedef uint32_t Whole __attribute__((vector_size(4 * LANES)));
typedef double Double __attribute__((aligned(4), may_alias));
typedef double Doubles __attribute__((vector_size(16)));

// Two entries of a table, side by side.
Four both(const float* a, const float* b) {
  return (Four)Doubles{*reinterpret_cast<const Double*>(a), *reinterpret_cast<const Double*>(b)};
}

void put(Four value, float* a, float* b) {
  *reinterpret_cast<Double*>(a) = ((Doubles)value)[0];
  *reinterpret_cast<Double*>(b) = ((Doubles)value)[1];
}

// One level of the grid.
struct Level {
  float half, last, inner;
  uint32_t y, z, mask;
  bool own;  // an entry for every corner

  Level(int resolution, int64_t size) {
    const uint32_t side = uint32_t(resolution) + 1;
    own = uint64_t(side) * side * side <= uint64_t(size);
    y = own ? side : 2654435761u;
    z = own ? side * side : 805459861u;
    mask = uint32_t(size - 1);
    half = 0.5f * resolution;
    last = float(resolution);
    inner = resolution - 0.5f;
  }
};

// The four edges along x around LANES points: entries of their ends, weights, and how far along x the points are.
template <bool OWN>
struct Edges {
  alignas(32) uint32_t from[4][LANES];
  alignas(32) uint32_t to[OWN ? 1 : 4][LANES];
  alignas(32) float weight[4][LANES];
  Floats along;

  Edges(const Level& level, const Places& places, int group) {
    Whole low[3];
    Floats share[3];
    for (int d = 0; d < 3; ++d) {
      const Floats raw = load(places.along[d] + group * LANES) * level.half + level.half;
      const Floats place = larger(smaller(raw, same(level.last)), Floats{});
      const Ints cell = __builtin_convertvector(smaller(place, same(level.inner)), Ints);
      share[d] = place - __builtin_convertvector(cell, Floats);
      low[d] = (Whole)cell;
    }
    along = share[0];
    const Whole y[2] = {low[1] * level.y, low[1] * level.y + level.y};
    const Whole z[2] = {low[2] * level.z, low[2] * level.z + level.z};
    const Floats share_y[2] = {1.0f - share[1], share[1]}, share_z[2] = {1.0f - share[2], share[2]};
    for (int k = 0; k < 2; ++k)
      for (int j = 0; j < 2; ++j) {
        const int edge = 2 * k + j;
        store(weight[edge], share_y[j] * share_z[k]);
        if constexpr (OWN) {
          *reinterpret_cast<Whole*>(from[edge]) = low[0] + y[j] + z[k];
        } else {
          *reinterpret_cast<Whole*>(from[edge]) = (low[0] ^ y[j] ^ z[k]) & level.mask;
          *reinterpret_cast<Whole*>(to[edge]) = ((low[0] + 1u) ^ y[j] ^ z[k]) & level.mask;
        }
      }
  }

  template <class Number>
  Number* first(Number* table, int edge, int lane) const { return table + 2 * size_t(from[edge][lane]); }

  template <class Number>
  Number* second(Number* table, int edge, int lane) const {
    if constexpr (OWN) return first(table, edge, lane) + 2;
    else return table + 2 * size_t(to[edge][lane]);
  }
};

template <bool OWN>
void read(const Level& level, const float* table, float share, const Places& places, int rows, int row, float* into) {
  for (int group = 0; group < places.groups; ++group) {
    const Edges<OWN> edges(level, places, group);
    Four found[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
      Four sum = {};
      for (int edge = 0; edge < 4; ++edge)
        sum += edges.weight[edge][lane] * both(edges.first(table, edge, lane), edges.second(table, edge, lane));
      found[lane] = sum;
    }
    Floats ends[4];
    for (int k = 0; k < 4; ++k) ends[k] = joined(found[k], found[(k + 4) % LANES]);
    transpose(ends);
    float* to = into + place_of(rows, row, group);
    store(to, share * (ends[0] + edges.along * (ends[2] - ends[0])));
    store(to + BLOCK, share * (ends[1] + edges.along * (ends[3] - ends[1])));
  }
}

template <bool OWN>
void pull(const Level& level, float* table, float share, const Places& places, const int32_t* listed, int groups,
          int rows, int row, const float* d_features) {
  for (int group = 0; group < groups; ++group) {
    const Edges<OWN> edges(level, places, listed[group]);
    const float* from = d_features + place_of(rows, row, group);
    const Floats d[2] = {share * load(from), share * load(from + BLOCK)};
    Floats ends[4] = {d[0] - edges.along * d[0], d[1] - edges.along * d[1], edges.along * d[0], edges.along * d[1]};
    transpose(ends);
    alignas(32) float pulls[4][LANES];
    for (int k = 0; k < 4; ++k) store(pulls[k], ends[k]);
    for (int lane = 0; lane < LANES; ++lane) {
      const Four own = *reinterpret_cast<const FourAnywhere*>(pulls[lane % 4] + lane / 4 * 4);
      for (int edge = 0; edge < 4; ++edge) {
        float *first = edges.first(table, edge, lane), *second = edges.second(table, edge, lane);
        put(both(first, second) + edges.weight[edge][lane] * own, first, second);
      }
    }
  }
}

}  // namespace

void read_level(const Hashed& h, int level, const Places& places, float* into) {
  if (h.shares[level] == 0) {
    for (int group = 0; group < places.groups; ++group)
      for (int row = 2 * level; row < 2 * level + 2; ++row) store(into + place_of(features(h), row, group), Floats{});
    return;
  }
  const Level grid(h.resolutions[level], h.size);
  const float* table = h.tables + 2 * h.size * level;
  (grid.own ? read<true> : read<false>)(grid, table, h.shares[level], places, features(h), 2 * level, into);
}

void pull_level(const Hashed& h, int level, const Places& places, const int32_t* listed, int groups,
                const float* d_features, float* d_tables) {
  if (h.shares[level] == 0) return;
  const Level grid(h.resolutions[level], h.size);
  float* table = d_tables + 2 * h.size * level;
  const auto way = grid.own ? pull<true> : pull<false>;
  way(grid, table, h.shares[level], places, listed, groups, features(h), 2 * level, d_features);
}

}  // namespace sds3d
