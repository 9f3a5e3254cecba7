// How dense a cloud of Gaussians is at the points of a regular grid: each one adds to the box it reaches, no farther.
// renderers/splats/density_grid.py holds the readable twin.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

int64_t clamped(double index, int64_t count) {
    return static_cast<int64_t>(std::min(std::max(index, 0.0), static_cast<double>(count)));
}

}  // namespace

extern "C" {

// means [splats, 3]; precisions [splats, 6]: xx, xy, xz, yy, yz, zz of the inverse covariance; extents [splats, 3]:
// half the box each splat reaches, along the axes; peaks [splats]: its value at the mean; reach: Mahalanobis distance
// beyond which it adds nothing. The grid's point (i, j, k) is at origin + spacing * (i, j, k).
// Added to: values [nx, ny, nz], k fastest.
void sds3d_density(const double* means, const double* precisions, const double* extents, const double* peaks,
                   int64_t splats, double reach, const double* origin, double spacing, int64_t nx, int64_t ny,
                   int64_t nz, float* values) {
    const int64_t count[3] = {nx, ny, nz};
    for (int64_t s = 0; s < splats; ++s) {
        const double* m = means + 3 * s;
        const double* a = precisions + 6 * s;
        int64_t low[3], high[3];
        for (int d = 0; d < 3; ++d) {
            low[d] = clamped(std::ceil((m[d] - extents[3 * s + d] - origin[d]) / spacing), count[d]);
            high[d] = clamped(std::floor((m[d] + extents[3 * s + d] - origin[d]) / spacing) + 1.0, count[d]);
        }
        for (int64_t i = low[0]; i < high[0]; ++i) {
            const double x = origin[0] + spacing * i - m[0];
            for (int64_t j = low[1]; j < high[1]; ++j) {
                const double y = origin[1] + spacing * j - m[1];
                // Along z the squared distance is a parabola a5 z^2 + 2 b z + c; it is within reach between its roots.
                const double b = a[2] * x + a[4] * y, c = a[0] * x * x + 2.0 * a[1] * x * y + a[3] * y * y;
                const double inside = b * b - a[5] * (c - reach * reach);
                if (!(inside >= 0.0)) continue;
                const double middle = -b / a[5], half = std::sqrt(inside) / a[5];
                const double start = m[2] - origin[2];
                const int64_t k0 = clamped(std::ceil((start + middle - half) / spacing), nz);
                const int64_t k1 = clamped(std::floor((start + middle + half) / spacing) + 1.0, nz);
                float* row = values + (i * ny + j) * nz;
                const float peak = static_cast<float>(peaks[s] * std::exp(-0.5 * (c - b * b / a[5])));
                const float scale = static_cast<float>(-0.5 * a[5]);
                for (int64_t k = k0; k < k1; ++k) {
                    const float z = static_cast<float>(origin[2] + spacing * k - m[2] - middle);
                    row[k] += peak * std::exp(scale * z * z);
                }
            }
        }
    }
}

}  // extern "C"
