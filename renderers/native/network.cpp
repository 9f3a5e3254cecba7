// A network of one hidden layer that reads the features of points, and the way back, a block of points at a time.
//
// features [F,P]; hidden [H,F] with max(0, .) after it; out [4,H] to raw density (to which offset [P] is added) and raw
// red, green, blue. density [P] = scale softplus, albedo [P,3] = logistic. No biases.
// The gradients of the weights are summed over stretches of points of a fixed length, and these sums one after the
// other, so that the number of threads means nothing.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "activations.h"

namespace sds3d {
namespace {

constexpr int BLOCK = 64, ROWS = 4;
constexpr int MOST_FEATURES = 32, MOST_NEURONS = 256;
constexpr int64_t STRETCH = 4096;

struct Network {
  int32_t features, neurons;   // multiples of 4, at most MOST_*
  int32_t threads;
  float scale;
  int64_t points;
  const float* inputs;         // [F,P]
  const float* hidden;
  const float* out;
  const float* offset;
};

// to[rows][BLOCK] = weights[rows][columns] from[columns][BLOCK], with the strides of the weights given; rows come in
// fours.
void multiply(const float* weights, int row_stride, int column_stride, int rows, int columns, const float* from,
              float* to) {
  for (int row = 0; row < rows; row += ROWS)
    for (int v = 0; v < BLOCK; v += 2 * LANES) {
      Floats sum[ROWS][2] = {};
      for (int column = 0; column < columns; ++column) {
        const Floats x = load(from + column * BLOCK + v), y = load(from + column * BLOCK + v + LANES);
        for (int r = 0; r < ROWS; ++r) {
          const float weight = weights[(row + r) * row_stride + column * column_stride];
          sum[r][0] += weight * x;
          sum[r][1] += weight * y;
        }
      }
      for (int r = 0; r < ROWS; ++r) {
        store(to + (row + r) * BLOCK + v, sum[r][0]);
        store(to + (row + r) * BLOCK + v + LANES, sum[r][1]);
      }
    }
}

// gradient[rows][columns] += sum over the block of d[rows] x[columns].
void outer(const float* d, const float* x, int rows, int columns, float* gradient) {
  for (int row = 0; row < rows; row += 2)
    for (int column = 0; column < columns; column += 4) {
      Floats sum[2][4] = {};
      for (int v = 0; v < BLOCK; v += LANES) {
        const Floats d0 = load(d + row * BLOCK + v), d1 = load(d + (row + 1) * BLOCK + v);
        for (int c = 0; c < 4; ++c) {
          const Floats value = load(x + (column + c) * BLOCK + v);
          sum[0][c] += d0 * value;
          sum[1][c] += d1 * value;
        }
      }
      for (int r = 0; r < 2; ++r) {
        float* to = gradient + (row + r) * columns + column;
        const Four more = sums(sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
        store_four(to, *reinterpret_cast<const FourAnywhere*>(to) + more);
      }
    }
}

// Up to BLOCK points: those from `first` on, or from there those that are listed.
struct Some {
  int64_t first;
  int count;
  const int32_t* listed;

  void read(const float* from, float* to) const {
    if (!listed) std::memcpy(to, from + first, sizeof(float) * count);
    for (int i = 0; listed && i < count; ++i) to[i] = from[first + listed[i]];
    std::fill(to + count, to + BLOCK, 0.0f);
  }
};

struct Block {
  alignas(32) float inputs[MOST_FEATURES][BLOCK];
  alignas(32) float neurons[MOST_NEURONS][BLOCK];
  alignas(32) float raw[4][BLOCK];
  alignas(32) float d_raw[4][BLOCK];
  alignas(32) float d_neurons[MOST_NEURONS][BLOCK];
  alignas(32) float d_inputs[MOST_FEATURES][BLOCK];

  void forward(const Network& n, const Some& some) {
    for (int f = 0; f < n.features; ++f) some.read(n.inputs + f * n.points, inputs[f]);
    multiply(n.hidden, n.features, 1, n.neurons, n.features, inputs[0], neurons[0]);
    for (int i = 0; i < n.neurons * BLOCK; i += LANES)
      store(neurons[0] + i, larger(load(neurons[0] + i), Floats{}));
    multiply(n.out, n.neurons, 1, 4, n.neurons, neurons[0], raw[0]);
    alignas(32) float more[BLOCK];
    some.read(n.offset, more);
    for (int v = 0; v < BLOCK; v += LANES) store(raw[0] + v, load(raw[0] + v) + load(more + v));
  }

  // From d_raw to the gradients of the weights and to d_inputs.
  void backward(const Network& n, float* d_hidden, float* d_out) {
    outer(d_raw[0], neurons[0], 4, n.neurons, d_out);
    multiply(n.out, 1, n.neurons, n.neurons, 4, d_raw[0], d_neurons[0]);
    for (int i = 0; i < n.neurons * BLOCK; i += LANES)
      store(d_neurons[0] + i, keep(load(neurons[0] + i) > 0.0f, load(d_neurons[0] + i)));
    outer(d_neurons[0], inputs[0], n.neurons, n.features, d_hidden);
    multiply(n.hidden, 1, n.features, n.features, n.neurons, d_neurons[0], d_inputs[0]);
  }
};

}  // namespace
}  // namespace sds3d

using namespace sds3d;

extern "C" {

// Fills density [P] and albedo [P,3].
void sds3d_network(const Network* network, float* density, float* albedo) {
  const Network n = *network;
  const int64_t stretches = (n.points + STRETCH - 1) / STRETCH;
#pragma omp parallel for schedule(dynamic, 1) num_threads(n.threads) if (n.threads > 1)
  for (int64_t stretch = 0; stretch < stretches; ++stretch) {
    const std::unique_ptr<Block> block(new Block);
    const int64_t end = std::min(n.points, (stretch + 1) * STRETCH);
    for (int64_t at = stretch * STRETCH; at < end; at += BLOCK) {
      const int count = int(std::min<int64_t>(BLOCK, end - at));
      block->forward(n, {at, count, nullptr});
      Floats rise;
      for (int v = 0; v < BLOCK; v += LANES) {
        store(block->raw[0] + v, n.scale * softplus(load(block->raw[0] + v), &rise));
        for (int c = 1; c < 4; ++c) store(block->raw[c] + v, logistic(load(block->raw[c] + v)));
      }
      std::memcpy(density + at, block->raw[0], sizeof(float) * count);
      for (int i = 0; i < count; ++i)
        for (int c = 0; c < 3; ++c) albedo[3 * (at + i) + c] = block->raw[1 + c][i];
    }
  }
}

// Fills d_inputs [F,P] and adds to d_hidden [H,F] and d_out [4,H], given zeros; partial has room for as many numbers as
// these two together for each 4096 points, and is given zeros too.
void sds3d_network_back(const Network* network, const float* d_density, const float* d_albedo, float* partial,
                        float* d_inputs, float* d_hidden, float* d_out) {
  const Network n = *network;
  const int64_t stretches = (n.points + STRETCH - 1) / STRETCH;
  const int64_t hidden = int64_t(n.neurons) * n.features, size = hidden + 4 * n.neurons;
#pragma omp parallel for schedule(dynamic, 1) num_threads(n.threads) if (n.threads > 1)
  for (int64_t stretch = 0; stretch < stretches; ++stretch) {
    const std::unique_ptr<Block> block(new Block);
    float* own = partial + stretch * size;
    const int64_t first = stretch * STRETCH, all = std::min(n.points - first, STRETCH);
    int32_t listed[STRETCH];
    int found = 0;
    for (int i = 0; i < all; ++i) {
      const float* d = d_albedo + 3 * (first + i);
      listed[found] = i;  // points behind what stops their ray have no gradient
      found += d_density[first + i] != 0 || d[0] != 0 || d[1] != 0 || d[2] != 0;
    }
    for (int f = 0; f < n.features; ++f) std::memset(d_inputs + f * n.points + first, 0, sizeof(float) * all);
    for (int at = 0; at < found; at += BLOCK) {
      const Some some = {first, std::min(BLOCK, found - at), listed + at};
      block->forward(n, some);
      some.read(d_density, block->d_raw[0]);
      std::memset(block->d_raw[1], 0, 3 * sizeof block->d_raw[1]);
      for (int i = 0; i < some.count; ++i)
        for (int c = 0; c < 3; ++c) block->d_raw[1 + c][i] = d_albedo[3 * (first + some.listed[i]) + c];
      for (int v = 0; v < BLOCK; v += LANES) {
        Floats rise;
        softplus(load(block->raw[0] + v), &rise);
        store(block->d_raw[0] + v, n.scale * rise * load(block->d_raw[0] + v));
        for (int c = 1; c < 4; ++c) {
          const Floats albedo = logistic(load(block->raw[c] + v));
          store(block->d_raw[c] + v, albedo * (1.0f - albedo) * load(block->d_raw[c] + v));
        }
      }
      block->backward(n, own, own + hidden);
      for (int f = 0; f < n.features; ++f)
        for (int i = 0; i < some.count; ++i)
          d_inputs[f * n.points + first + some.listed[i]] = block->d_inputs[f][i];
    }
  }
  for (int64_t stretch = 0; stretch < stretches; ++stretch) {
    for (int64_t i = 0; i < hidden; ++i) d_hidden[i] += partial[stretch * size + i];
    for (int64_t i = 0; i < 4 * n.neurons; ++i) d_out[i] += partial[stretch * size + hidden + i];
  }
}

}  // extern "C"
