// A device guard and hooks for CUDA that do nothing: without them a CPU build of torch refuses `to("cuda")` and
// backward of CUDA tensors. And the pictures of gsplat's stand-in, for when no gradient is wanted.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace {
constexpr c10::DeviceIndex kDevices = 2;
thread_local c10::DeviceIndex current = 0;
c10::DeviceIndex exchange(c10::DeviceIndex next) {
  const auto before = current;
  if (next >= 0) current = next;
  return before;
}
}  // namespace

namespace c10::impl {
struct PretendGuard final : DeviceGuardImplInterface {
  static constexpr DeviceType static_type = DeviceType::CUDA;
  PretendGuard() = default;
  explicit PretendGuard(DeviceType) {}
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device d) const override { return Device(DeviceType::CUDA, exchange(d.index())); }
  Device getDevice() const override { return Device(DeviceType::CUDA, current); }
  void setDevice(Device d) const override { exchange(d.index()); }
  void uncheckedSetDevice(Device d) const noexcept override { exchange(d.index()); }
  Stream getStream(Device d) const noexcept override { return Stream(Stream::DEFAULT, d); }
  Stream getNewStream(Device d, int) const override { return getStream(d); }
  Stream exchangeStream(Stream s) const noexcept override { return s; }
  DeviceIndex deviceCount() const noexcept override { return kDevices; }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void recordDataPtrOnStream(const DataPtr&, const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, PretendGuard)
}  // namespace c10::impl

namespace {
struct CUDAHooks : at::CUDAHooksInterface {
  CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  void setCurrentDevice(c10::DeviceIndex d) const override { exchange(d); }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex d) const override { return exchange(d); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex d) const override { return exchange(d); }
};
}  // namespace
namespace at {
REGISTER_CUDA_HOOKS(CUDAHooks);
}

// Splats, the nearest first, over nothing: out[h][w][channels + 1], alpha last. The rules of splat_reference.py.
extern "C" void pretend_composite(int count, int channels, int width, int height, const float* means, const float* conics,
                                  const float* colors, const float* opacities, float* out) {
  std::vector<float> through(static_cast<size_t>(width) * height, 1.0f);
  for (int n = 0; n < count; ++n) {
    const float x = means[2 * n], y = means[2 * n + 1], a = conics[3 * n], b = conics[3 * n + 1], c = conics[3 * n + 2];
    const float determinant = a * c - b * b;
    const float across = 3.34f * std::sqrt(c / determinant), down = 3.34f * std::sqrt(a / determinant);
    const int left = std::max(0.0f, x - across - 1), right = std::min<float>(width, std::max(0.0f, x + across + 2));
    const int top = std::max(0.0f, y - down - 1), bottom = std::min<float>(height, std::max(0.0f, y + down + 2));
    for (int row = top; row < bottom; ++row) {
      for (int column = left; column < right; ++column) {
        const float dx = x - (column + 0.5f), dy = y - (row + 0.5f);
        const float exponent = 0.5f * (a * dx * dx + c * dy * dy) + b * dx * dy;
        const float alpha = std::min(0.999f, opacities[n] * std::exp(-exponent));
        if (exponent < 0 || alpha < 1.0f / 255) continue;
        float& clear = through[static_cast<size_t>(row) * width + column];
        const float weight = alpha * clear;
        clear *= 1 - alpha;
        if (clear <= 1e-4f) continue;
        float* pixel = out + (static_cast<size_t>(row) * width + column) * (channels + 1);
        for (int k = 0; k < channels; ++k) pixel[k] += weight * colors[n * channels + k];
        pixel[channels] += weight;
      }
    }
  }
}
