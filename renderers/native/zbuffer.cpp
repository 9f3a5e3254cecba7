// Which triangle each pixel of a picture sees: a z-buffer over screen-space triangles.
//
// Corners are snapped to 1/256 of a pixel and edges are evaluated in whole numbers, so that a pixel centre on an
// edge shared by two triangles belongs to exactly one of them (top-left rule) and no pixel is lost between them.
// Both sides of a triangle are drawn. Pixel (row i, column j) has its centre at (j + 0.5, i + 0.5); y points down.
// A triangle with a corner at depth <= 0, or farther than kFarthest pixels from the picture's corner, is left out.
// renderers/zbuffer.py holds the readable twin.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int64_t kSub = 256;
constexpr float kFarthest = 1e6f;

struct Triangle {
    int64_t x[3], y[3];
    double inverse_depth[3];
    int64_t doubled_area;
    bool drawn;
};

int64_t snapped(float pixels) { return static_cast<int64_t>(std::nearbyint(static_cast<double>(pixels) * kSub)); }

// Twice the signed area of (a, b, p), positive when p is on the inner side of the edge from corner a to corner b.
int64_t edge(const Triangle& t, int a, int b, int64_t px, int64_t py) {
    return (t.x[b] - t.x[a]) * (py - t.y[a]) - (t.y[b] - t.y[a]) * (px - t.x[a]);
}

// 0 for edges that own the pixel centres on them (top and left ones), 1 for the others.
int64_t strictness(const Triangle& t, int a, int b) {
    const int64_t dx = t.x[b] - t.x[a], dy = t.y[b] - t.y[a];
    return (dy < 0 || (dy == 0 && dx > 0)) ? 0 : 1;
}

Triangle corners(const float* screen, const int32_t* face) {
    Triangle t;
    t.drawn = true;
    for (int k = 0; k < 3; ++k) {
        const float* p = screen + 3 * static_cast<int64_t>(face[k]);
        if (!(p[2] > 0.0f) || !(std::fabs(p[0]) < kFarthest) || !(std::fabs(p[1]) < kFarthest)) {
            t.drawn = false;
            return t;
        }
        t.x[k] = snapped(p[0]);
        t.y[k] = snapped(p[1]);
        t.inverse_depth[k] = 1.0 / static_cast<double>(p[2]);
    }
    t.doubled_area = edge(t, 0, 1, t.x[2], t.y[2]);
    t.drawn = t.doubled_area != 0;
    return t;
}

// The same triangle with corners 1 and 2 exchanged, so that its area is positive.
Triangle turned(Triangle t) {
    std::swap(t.x[1], t.x[2]);
    std::swap(t.y[1], t.y[2]);
    std::swap(t.inverse_depth[1], t.inverse_depth[2]);
    t.doubled_area = -t.doubled_area;
    return t;
}

// First pixel whose centre is at or after `s` (in sub-pixels), and last one whose centre is at or before it.
int64_t first_pixel(int64_t s) { return (s - kSub / 2 + kSub - 1 + (kSub << 24)) / kSub - (1 << 24); }
int64_t last_pixel(int64_t s) { return (s - kSub / 2 + (kSub << 24)) / kSub - (1 << 24); }

void draw(const Triangle& t, int32_t id, int64_t height, int64_t width, int32_t* face, double* nearest) {
    const int64_t j0 = std::max<int64_t>(0, first_pixel(std::min({t.x[0], t.x[1], t.x[2]})));
    const int64_t j1 = std::min<int64_t>(width - 1, last_pixel(std::max({t.x[0], t.x[1], t.x[2]})));
    const int64_t i0 = std::max<int64_t>(0, first_pixel(std::min({t.y[0], t.y[1], t.y[2]})));
    const int64_t i1 = std::min<int64_t>(height - 1, last_pixel(std::max({t.y[0], t.y[1], t.y[2]})));
    if (j0 > j1 || i0 > i1) return;
    const int64_t px = j0 * kSub + kSub / 2;
    const int64_t strict[3] = {strictness(t, 1, 2), strictness(t, 2, 0), strictness(t, 0, 1)};
    const int64_t step[3] = {-(t.y[2] - t.y[1]) * kSub, -(t.y[0] - t.y[2]) * kSub, -(t.y[1] - t.y[0]) * kSub};
    const double area = static_cast<double>(t.doubled_area);
    for (int64_t i = i0; i <= i1; ++i) {
        const int64_t py = i * kSub + kSub / 2;
        int64_t e0 = edge(t, 1, 2, px, py), e1 = edge(t, 2, 0, px, py), e2 = edge(t, 0, 1, px, py);
        for (int64_t j = j0; j <= j1; ++j, e0 += step[0], e1 += step[1], e2 += step[2]) {
            if (e0 < strict[0] || e1 < strict[1] || e2 < strict[2]) continue;
            const double inverse = (e0 * t.inverse_depth[0] + e1 * t.inverse_depth[1] + e2 * t.inverse_depth[2]) / area;
            if (inverse > nearest[i * width + j]) {
                nearest[i * width + j] = inverse;
                face[i * width + j] = id;
            }
        }
    }
}

}  // namespace

extern "C" {

// screen [views, vertices, 3]: x and y in pixels, depth along the camera's axis. faces [face_count, 3].
// Written: face [views, height, width] (-1 where nothing is seen), bary [views, height, width, 3] perspective-correct
// weights of the three corners, depth [views, height, width]; both 0 where nothing is seen.
void sds3d_zbuffer(const float* screen, const int32_t* faces, int64_t views, int64_t vertices, int64_t face_count,
                   int64_t height, int64_t width, int32_t* face, float* bary, float* depth) {
    const int64_t pixels = height * width;
    std::vector<double> nearest(pixels);
    for (int64_t v = 0; v < views; ++v, screen += 3 * vertices, face += pixels, bary += 3 * pixels, depth += pixels) {
        std::fill(nearest.begin(), nearest.end(), 0.0);
        std::fill(face, face + pixels, -1);
        for (int64_t f = 0; f < face_count; ++f) {
            const Triangle t = corners(screen, faces + 3 * f);
            if (!t.drawn) continue;
            draw(t.doubled_area > 0 ? t : turned(t), static_cast<int32_t>(f), height, width, face, nearest.data());
        }
        for (int64_t p = 0; p < pixels; ++p) {
            bary[3 * p] = bary[3 * p + 1] = bary[3 * p + 2] = depth[p] = 0.0f;
            if (face[p] < 0) continue;
            const Triangle t = corners(screen, faces + 3 * static_cast<int64_t>(face[p]));
            const int64_t px = (p % width) * kSub + kSub / 2, py = (p / width) * kSub + kSub / 2;
            const double area = static_cast<double>(t.doubled_area), z = 1.0 / nearest[p];
            bary[3 * p] = static_cast<float>(edge(t, 1, 2, px, py) / area * t.inverse_depth[0] * z);
            bary[3 * p + 1] = static_cast<float>(edge(t, 2, 0, px, py) / area * t.inverse_depth[1] * z);
            bary[3 * p + 2] = static_cast<float>(edge(t, 0, 1, px, py) / area * t.inverse_depth[2] * z);
            depth[p] = static_cast<float>(z);
        }
    }
}

}  // extern "C"
