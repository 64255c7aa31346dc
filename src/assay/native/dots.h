// Products with weights in bfloat16 or int8 by the instructions made for them, where there are any.
//
// Weights are as they are stored, a row for each output. What they are multiplied with is split in
// two, so that rounding it costs next to nothing: with bfloat16, x = high + low, each a bfloat16
// (16 bits of the 24); with int8, x = s (128 high + low) with integers high in [-128, 127] and low in
// [0, 127], whose sums are exact. A result depends on its own row and entry alone.

#pragma once

#include "product.h"
#include "team.h"

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define ASSAY_DOTS 1
#endif

namespace assay {
namespace {

// Where the results of a product go: an entry a row.
struct Target {
  float* out;
  int64_t stride;
  bool add;
  const float *scale, *bias;
  float of(int row, float value) const {
    if (scale) value *= scale[row];
    return bias ? value + bias[row] : value;
  }
  void put(int row, int entry, float value) const {
    float& place = out[entry * stride + row];
    place = add ? place + of(row, value) : of(row, value);
  }
};

#ifdef ASSAY_DOTS

// The entries of a product, split. A thread splits some of them; all must be there before a product.
class Operand {
 public:
  Operand(int64_t count, int64_t width)
      : width_(width), stride_((width + 63) / 64 * 64), high_(2 * count * stride_), low_(2 * count * stride_),
        high_panels_(2 * padded(count) * stride_), low_panels_(2 * padded(count) * stride_), steps_(padded(count)) {}

  // This thread's share of the entries, in panels of 16.
  void split(const float* x, int count, bool int8, Team team) {
    int first, last;
    span(count, kPanel, team, first, last);
    if (first == last) return;  // of a panel that another thread splits
    for (int e = first; e < last; ++e) int8 ? split_int8(x + e * width_, e) : split_bf16(x + e * width_, e);
#ifdef ASSAY_TILES
    if (in_tiles<BF16>())
      for (int panel = first / kPanel; panel * kPanel < last; ++panel)
        for (int half = 0; half < 2; ++half) lay_out(panel, last - panel * kPanel, int8, half);
#endif
  }

  const BF16* bf16(int half, int entry) const { return (const BF16*)rows(half) + entry * stride_; }
  const uint8_t* int8(int half, int entry) const { return rows(half) + entry * stride_; }
  const uint8_t* panel(int half, int index, bool int8) const {
    return (half ? low_panels_ : high_panels_).data() + index * stride_ * kPanel * (int8 ? 1 : 2);
  }
  float step(int entry) const { return steps_[entry]; }

 private:
  typedef std::vector<uint8_t, OnLines<uint8_t>> Raw;
  const uint8_t* rows(int half) const { return (half ? low_ : high_).data(); }

  void split_bf16(const float* x, int entry) {
    BF16 *high = (BF16*)high_.data() + entry * stride_, *low = (BF16*)low_.data() + entry * stride_;
    each(width_, [&](int i, int n) {
      const Vec v = take(x + i, n);
      put(high + i, v, n);
      put(low + i, v - take(high + i, n), n);
    });
  }

  // Both halves as bytes without sign, the high one 128 too large: that is how VNNI wants them.
  void split_int8(const float* x, int entry) {
    Vec most = {};
    bool finite = true;
    each(width_, [&](int i, int n) {
      const Vec v = take(x + i, n), size = v < 0.0f ? -v : v;
      most = size > most ? size : most;
      finite &= sum(v - v) == 0.0f;
    });
    float largest = 0;
    for (int lane = 0; lane < kLanes; ++lane) largest = most[lane] > largest ? most[lane] : largest;
    const float step = largest > 0 ? largest / 16383.0f : 1.0f;
    steps_[entry] = finite ? step : NAN;
    uint8_t *high = high_.data() + entry * stride_, *low = low_.data() + entry * stride_;
    const float factor = finite ? 1.0f / step : 0.0f;
    for (int64_t i = 0; i < stride_; i += kLanes) {
      const int64_t left = width_ - i;
      const Vec v = left >= kLanes ? load(x + i) : left > 0 ? load_some(x + i, left) : Vec{};
      const __m512i whole = _mm512_cvtps_epi32((__m512)(finite ? v * factor : Vec{}));
      const __m512i part = _mm512_add_epi32(whole, _mm512_set1_epi32(128 * 128));
      _mm_storeu_si128((__m128i*)(high + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(part, 7)));
      _mm_storeu_si128((__m128i*)(low + i),
                       _mm512_cvtepi32_epi8(_mm512_and_si512(part, _mm512_set1_epi32(127))));
    }
  }

  // Panels for tiles: units of 32 bits along the width, of 16 entries side by side; signed bytes.
  void lay_out(int panel, int count, bool int8, int half) {
    const int64_t size = stride_ * (int8 ? 1 : 2);
    const uint8_t* from = rows(half) + panel * kPanel * size;
    uint8_t* to = (half ? low_panels_ : high_panels_).data() + panel * kPanel * size;
    const uint32_t flip = int8 && !half ? 0x80808080u : 0u;
    if (count == 1) {  // what stands beside it reaches no result
      for (int64_t u = 0; u < size / 4; ++u) {
        uint32_t unit;
        std::memcpy(&unit, from + 4 * u, 4);
        unit ^= flip;
        std::memcpy(to + 4 * kPanel * u, &unit, 4);
      }
      return;
    }
    const Units sign = Units{} + flip;
    for (int64_t i = 0; i < size; i += 64) {
      Units block[16] = {};
      for (int e = 0; e < kPanel && e < count; ++e) {
        std::memcpy(&block[e], from + e * size + i, 64);
        block[e] ^= sign;
      }
      transpose(block);
      std::memcpy(to + i * kPanel, block, sizeof block);
    }
  }

  const int64_t width_, stride_;
  Raw high_, low_, high_panels_, low_panels_;
  std::vector<float> steps_;
};

// --- by vectors

// R rows of weights and E entries. The last vector of a row is filled up with zeros.
template <int R, int E>
void dots(const BF16* weight, int64_t width, const Operand& x, const Target& to, int row, int entry) {
  __m512 sums[R][E] = {};
  const auto add = [&](int64_t i, auto at) {
    __m512bh high[E], low[E];
#pragma GCC unroll 8
    for (int e = 0; e < E; ++e) {
      high[e] = (__m512bh)_mm512_loadu_si512(x.bf16(0, entry + e) + i);
      low[e] = (__m512bh)_mm512_loadu_si512(x.bf16(1, entry + e) + i);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh w = (__m512bh)at(weight + r * width + i);
#pragma GCC unroll 8
      for (int e = 0; e < E; ++e)
        sums[r][e] = _mm512_dpbf16_ps(_mm512_dpbf16_ps(sums[r][e], w, high[e]), w, low[e]);
    }
  };
  int64_t i = 0;
  for (; i + 32 <= width; i += 32) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) __builtin_prefetch(weight + (R + r) * width + i);
    add(i, [](const BF16* from) { return _mm512_loadu_si512(from); });
  }
  if (i < width) {
    const __mmask32 rest = (1u << (width - i)) - 1;
    add(i, [rest](const BF16* from) { return _mm512_maskz_loadu_epi16(rest, from); });
  }
  for (int r = 0; r < R; ++r)
    for (int e = 0; e < E; ++e) to.put(row + r, entry + e, sum((Vec)sums[r][e]));
}

inline float joined(int high, int low, float step) { return (float(high) * 128.0f + float(low)) * step; }

template <int R, int E>
void dots(const int8_t* weight, int64_t width, const Operand& x, const Target& to, int row, int entry) {
  __m512i high[R][E] = {}, low[R][E] = {}, whole[R] = {};
  const auto add = [&](int64_t i, auto at) {
    __m512i xs[2][E];
#pragma GCC unroll 8
    for (int e = 0; e < E; ++e)
      for (int half = 0; half < 2; ++half) xs[half][e] = _mm512_loadu_si512(x.int8(half, entry + e) + i);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512i w = at(weight + r * width + i);
      whole[r] = _mm512_dpbusd_epi32(whole[r], _mm512_set1_epi8(1), w);
#pragma GCC unroll 8
      for (int e = 0; e < E; ++e) {
        high[r][e] = _mm512_dpbusd_epi32(high[r][e], xs[0][e], w);
        low[r][e] = _mm512_dpbusd_epi32(low[r][e], xs[1][e], w);
      }
    }
  };
  int64_t i = 0;
  for (; i + 64 <= width; i += 64) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) __builtin_prefetch(weight + (R + r) * width + i);
    add(i, [](const int8_t* from) { return _mm512_loadu_si512(from); });
  }
  if (i < width) {
    const __mmask64 rest = (1ull << (width - i)) - 1;
    add(i, [rest](const int8_t* from) { return _mm512_maskz_loadu_epi8(rest, from); });
  }
  for (int r = 0; r < R; ++r) {
    const int offset = 128 * _mm512_reduce_add_epi32(whole[r]);
    for (int e = 0; e < E; ++e)
      to.put(row + r, entry + e,
             joined(_mm512_reduce_add_epi32(high[r][e]) - offset, _mm512_reduce_add_epi32(low[r][e]),
                    x.step(entry + e)));
  }
}

template <int R, int E, typename T>
void dot_rows(const T* weight, int64_t width, const Operand& x, const Target& to, int first, int last,
              int entry) {
  int row = first;
  for (; row + R <= last; row += R) dots<R, E>(weight + row * width, width, x, to, row, entry);
  for (; row < last; ++row) dots<1, E>(weight + row * width, width, x, to, row, entry);
}

// Strips of rows that stay in the cache meet all entries.
template <typename T>
void by_vectors(const T* weight, int64_t width, const Operand& x, int count, const Target& to, int first,
                int last) {
  constexpr int kStrip = 8, R1 = sizeof(T) == 2 ? 8 : 4, R4 = sizeof(T) == 2 ? 4 : 2;
  if (count == 1) return dot_rows<R1, 1>(weight, width, x, to, first, last, 0);
  for (int row = first; row < last; row += kStrip) {
    const int end = row + kStrip < last ? row + kStrip : last;
    int e = 0;
    for (; e + 4 <= count; e += 4) dot_rows<R4, 4>(weight, width, x, to, row, end, e);
    for (; e + 2 <= count; e += 2) dot_rows<R4, 2>(weight, width, x, to, row, end, e);
    for (; e < count; ++e) dot_rows<R4, 1>(weight, width, x, to, row, end, e);
  }
}

// --- by tiles: 16 rows of weights, 16 entries

#ifdef ASSAY_TILES

// 16 rows x 16 entries of sums, one entry a vector, to their places.
inline void put_block(Units* block, const Target& to, int row, int n_rows, int entry, int n_entries) {
  transpose(block);
  for (int e = 0; e < n_entries; ++e) {
    Vec v;
    std::memcpy(&v, &block[e], sizeof v);
    float* place = to.out + (entry + e) * to.stride + row;
    if (to.scale) v *= take(to.scale + row, n_rows);
    if (to.bias) v += take(to.bias + row, n_rows);
    assay::put(place, to.add ? take(place, n_rows) + v : v, n_rows);
  }
}

// Two groups of 16 rows, with what of the weights comes next asked for.
inline void tile_dots(const BF16* weight, int64_t width, int64_t ahead, const Operand& x, int panel,
                      Units (*out)[16]) {
  const uint8_t *high = x.panel(0, panel, false), *low = x.panel(1, panel, false);
  _tile_zero(0);
  _tile_zero(2);
  for (int64_t i = 0; i < width; i += 32) {
    _tile_loadd(6, high + i * 32, 64);
    _tile_loadd(7, low + i * 32, 64);
    _tile_loadd(4, weight + i, 2 * width);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(0, 4, 7);
    _tile_loadd(5, weight + 16 * width + i, 2 * width);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(2, 5, 7);
    if (ahead)
      for (int r = 0; r < 32; ++r) __builtin_prefetch(weight + ahead + r * width + i);
  }
  _tile_stored(0, out[0], 64);
  _tile_stored(2, out[1], 64);
}

inline void tile_dots(const int8_t* weight, int64_t width, int64_t ahead, const Operand& x, int panel,
                      Units (*out)[16]) {
  const uint8_t *high = x.panel(0, panel, true), *low = x.panel(1, panel, true);
  alignas(64) int32_t sums[2][2][16][16];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t i = 0; i < width; i += 64) {
    _tile_loadd(6, high + i * 16, 64);
    _tile_loadd(7, low + i * 16, 64);
    _tile_loadd(4, weight + i, width);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    _tile_loadd(5, weight + 16 * width + i, width);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
    if (ahead)
      for (int r = 0; r < 32; ++r) __builtin_prefetch(weight + ahead + r * width + i);
  }
  _tile_stored(0, sums[0][0], 64);
  _tile_stored(1, sums[0][1], 64);
  _tile_stored(2, sums[1][0], 64);
  _tile_stored(3, sums[1][1], 64);
  Vec steps;
  for (int e = 0; e < kPanel; ++e) steps[e] = x.step(panel * kPanel + e);
  for (int group = 0; group < 2; ++group)
    for (int r = 0; r < 16; ++r) {
      const Vec high_sum = (Vec)_mm512_cvtepi32_ps(_mm512_loadu_si512(sums[group][0][r]));
      const Vec low_sum = (Vec)_mm512_cvtepi32_ps(_mm512_loadu_si512(sums[group][1][r]));
      const Vec v = (high_sum * 128.0f + low_sum) * steps;
      std::memcpy(&out[group][r], &v, sizeof v);
    }
}

template <typename T>
void by_tiles(const T* weight, int64_t width, int n_out, const Operand& x, int count, const Target& to,
              int first, int last) {
  constexpr int kAlong = 64 / sizeof(T);
  std::vector<T, OnLines<T>> copied;
  for (int row = first; row < last; row += 32) {
    const int n_rows = last - row < 32 ? last - row : 32;
    const T* from = weight + row * width;
    int64_t stride = width;
    // Tiles read 32 rows to the next full vector: at the end of the matrix that is beyond it.
    if (row + 32 > n_out || (width % kAlong && row + 33 > n_out)) {
      stride = (width + kAlong - 1) / kAlong * kAlong;
      copied.assign(32 * stride, T{});
      for (int r = 0; r < n_rows; ++r) std::memcpy(&copied[r * stride], from + r * width, sizeof(T) * width);
      from = copied.data();
    }
    const int64_t ahead = count <= kPanel && row + 64 <= n_out ? 32 * width : 0;
    for (int panel = 0; panel * kPanel < count; ++panel) {
      Units out[2][16];
      if (stride == width)
        tile_dots(from, stride, ahead, x, panel, out);
      else
        tile_dots(from, stride, 0, x, panel, out);
      const int left = count - panel * kPanel, n_entries = left < kPanel ? left : kPanel;
      put_block(out[0], to, row, n_rows < 16 ? n_rows : 16, panel * kPanel, n_entries);
      if (n_rows > 16) put_block(out[1], to, row + 16, n_rows - 16, panel * kPanel, n_entries);
    }
  }
}
#endif

// Rows [first, last) of the outputs.
template <typename T>
void dot_products(const T* weight, int n_out, int64_t width, const Operand& x, int count, const Target& to,
                  int first, int last) {
#ifdef ASSAY_TILES
  if (in_tiles<BF16>()) return by_tiles(weight, width, n_out, x, count, to, first, last);
#endif
  by_vectors(weight, width, x, count, to, first, last);
}

#else

struct Operand {
  Operand(int64_t, int64_t) {}
};

#endif  // ASSAY_DOTS

}  // namespace
}  // namespace assay
