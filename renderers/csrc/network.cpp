// A network of one hidden layer that reads the features of points, and the way back, a block of points at a time.
//
// density = scale softplus(raw + blob), albedo = logistic(raw). No biases. What a neuron holds is worked out again on
// the way back: that costs less than to fetch it.
#include <cstring>

#include "activations.h"
#include "hashed.h"

namespace sds3d {
namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#else
constexpr int WIDTH = LANES;
#endif
constexpr int ROWS = 4;
typedef float Wide __attribute__((vector_size(4 * WIDTH)));
typedef float WideAnywhere __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

Wide load_wide(const float* from) { return *reinterpret_cast<const WideAnywhere*>(from); }
void store_wide(float* to, Wide value) { *reinterpret_cast<WideAnywhere*>(to) = value; }

// As many lanes as the other functions take, with the same sum.
Floats folded(Wide v) {
  Floats parts[WIDTH / LANES];
  std::memcpy(parts, &v, sizeof parts);
  return WIDTH > LANES ? parts[0] + parts[WIDTH / LANES - 1] : parts[0];
}

// to[rows][BLOCK] = weights[rows][columns] from[columns][BLOCK], with the strides of the weights given; rows come in
// fours. `finish` has the last word on every number: it is given the sum and what was there.
template <class Finish>
void multiply(const float* weights, int row_stride, int column_stride, int rows, int columns, const float* from,
              float* to, Finish finish) {
  for (int row = 0; row < rows; row += ROWS)
    for (int v = 0; v < BLOCK; v += 2 * WIDTH) {
      Wide sum[ROWS][2] = {};
      for (int column = 0; column < columns; ++column) {
        const Wide x = load_wide(from + column * BLOCK + v), y = load_wide(from + column * BLOCK + v + WIDTH);
        for (int r = 0; r < ROWS; ++r) {
          const float weight = weights[(row + r) * row_stride + column * column_stride];
          sum[r][0] += weight * x;
          sum[r][1] += weight * y;
        }
      }
      for (int r = 0; r < ROWS; ++r)
        for (int i = 0; i < 2; ++i) {
          float* place = to + (row + r) * BLOCK + v + i * WIDTH;
          store_wide(place, finish(sum[r][i], place));
        }
    }
}

// gradient[rows][columns] += sum over the block of d[rows] x[columns].
void outer(const float* d, const float* x, int rows, int columns, float* gradient) {
  for (int row = 0; row < rows; row += 2)
    for (int column = 0; column < columns; column += 4) {
      Wide sum[2][4] = {};
      for (int v = 0; v < BLOCK; v += WIDTH) {
        const Wide d0 = load_wide(d + row * BLOCK + v), d1 = load_wide(d + (row + 1) * BLOCK + v);
        for (int c = 0; c < 4; ++c) {
          const Wide value = load_wide(x + (column + c) * BLOCK + v);
          sum[0][c] += d0 * value;
          sum[1][c] += d1 * value;
        }
      }
      for (int r = 0; r < 2; ++r) {
        float* to = gradient + (row + r) * columns + column;
        const Four more = sums(folded(sum[r][0]), folded(sum[r][1]), folded(sum[r][2]), folded(sum[r][3]));
        store_four(to, *reinterpret_cast<const FourAnywhere*>(to) + more);
      }
    }
}

// The neurons of a block, from its features.
void excite(const Hashed& h, const float* inputs, float* neurons) {
  multiply(h.hidden, features(h), 1, h.neurons, features(h), inputs, neurons,
           [](Wide sum, const float*) { return sum > 0.0f ? sum : Wide{}; });
}

}  // namespace

void network_forward(const Hashed& h, const float* inputs, const Places& places, int at, int count, float* density,
                     float* rise, float* albedo) {
  alignas(64) float neurons[MOST_NEURONS][BLOCK], raw[4][BLOCK], rises[BLOCK];
  excite(h, inputs, neurons[0]);
  multiply(h.out, h.neurons, 1, 4, h.neurons, neurons[0], raw[0], [](Wide sum, const float*) { return sum; });
  for (int v = 0; v < BLOCK; v += LANES) {
    Floats derivative, square = {};
    for (const auto& along : places.along) square += load(along + at + v) * load(along + at + v);
    const Floats blob = h.edge + h.height * exponential(square * -h.fall);
    store(raw[0] + v, h.scale * softplus(load(raw[0] + v) + blob, &derivative));
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
           [](Wide sum, const float* neuron) { return load_wide(neuron) > 0.0f ? sum : Wide{}; });
  outer(neurons[0], inputs, h.neurons, features(h), d_hidden);
  multiply(h.hidden, 1, features(h), features(h), h.neurons, neurons[0], d_inputs,
           [](Wide sum, const float*) { return sum; });
}

}  // namespace sds3d
