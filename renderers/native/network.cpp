// A network of one hidden layer that reads the features of points, and the way back, a block of points at a time.
//
// density = scale softplus(raw + offset), albedo = logistic(raw). No biases. What a neuron holds is worked out again on
// the way back: that costs less than to fetch it.
#include <algorithm>
#include <cstring>

#include "activations.h"
#include "hashed.h"

namespace sds3d {
namespace {

constexpr int ROWS = 4;

// to[rows][BLOCK] = weights[rows][columns] from[columns][BLOCK], with the strides of the weights given; rows come in
// fours.
template <class Finish>
void multiply(const float* weights, int row_stride, int column_stride, int rows, int columns, const float* from,
              float* to, Finish finish) {
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
      for (int r = 0; r < ROWS; ++r)
        for (int i = 0; i < 2; ++i) {
          float* place = to + (row + r) * BLOCK + v + i * LANES;
          store(place, finish(sum[r][i], place));
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

// The neurons of a block, from its features.
void excite(const Hashed& h, const float* inputs, float* neurons) {
  multiply(h.hidden, features(h), 1, h.neurons, features(h), inputs, neurons,
           [](Floats sum, const float*) { return larger(sum, Floats{}); });
}

}  // namespace

void network_forward(const Hashed& h, const float* inputs, const float* offset, int count, float* density, float* rise,
                     float* albedo) {
  alignas(64) float neurons[MOST_NEURONS][BLOCK], raw[4][BLOCK], more[BLOCK] = {}, rises[BLOCK];
  excite(h, inputs, neurons[0]);
  multiply(h.out, h.neurons, 1, 4, h.neurons, neurons[0], raw[0], [](Floats sum, const float*) { return sum; });
  std::memcpy(more, offset, sizeof(float) * count);
  for (int v = 0; v < BLOCK; v += LANES) {
    Floats derivative;
    store(raw[0] + v, h.scale * softplus(load(raw[0] + v) + load(more + v), &derivative));
    store(rises + v, h.scale * derivative);
    for (int c = 1; c < 4; ++c) store(raw[c] + v, logistic(load(raw[c] + v)));
  }
  std::memcpy(density, raw[0], sizeof(float) * count);
  if (rise) std::memcpy(rise, rises, sizeof(float) * count);
  for (int i = 0; i < count; ++i)
    for (int c = 0; c < 3; ++c) albedo[3 * i + c] = raw[1 + c][i];
}

void network_back(const Hashed& h, const float* inputs, const float* d_raw, float* d_inputs, float* d_hidden,
                  float* d_out) {
  alignas(64) float neurons[MOST_NEURONS][BLOCK];
  excite(h, inputs, neurons[0]);
  outer(d_raw, neurons[0], 4, h.neurons, d_out);
  multiply(h.out, 1, h.neurons, h.neurons, 4, d_raw, neurons[0],
           [](Floats sum, const float* neuron) { return keep(load(neuron) > 0.0f, sum); });
  outer(neurons[0], inputs, h.neurons, features(h), d_hidden);
  multiply(h.hidden, 1, features(h), features(h), h.neurons, neurons[0], d_inputs,
           [](Floats sum, const float*) { return sum; });
}

}  // namespace sds3d
