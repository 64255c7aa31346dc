// Products with weights in bfloat16 or int8 by the instructions made for them, where there are any.
//
// Weights are as they are stored, a row for each output. What meets bfloat16 is rounded to it. What
// meets int8 is split in two, so that rounding it costs next to nothing: x = s (128 high + low) with
// integers high in [-128, 127] and low in [0, 127], whose sums are exact. A result depends on its own
// row and entry alone.

#pragma once

#include <algorithm>

#include "operand.h"

#ifdef ASSAY_DOTS

namespace assay {
namespace {

// --- by vectors

// The sums over the lanes of 16 vectors; that of vector 4 i + j is lane 4 j + i. Each is added up in
// the order of `sum`.
template <typename T, typename Add>
__m512 sums_of(const T (&sums)[16], Add add) {
  __m512 v[16], fours[4], twos[2];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = (__m512)sums[i];

#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 *a = v + 4 * i, *b = a + 1, *c = a + 2, *d = a + 3;
    const __m512 ab = add(_mm512_shuffle_f32x4(*a, *b, 0x44), _mm512_shuffle_f32x4(*a, *b, 0xee));
    const __m512 cd = add(_mm512_shuffle_f32x4(*c, *d, 0x44), _mm512_shuffle_f32x4(*c, *d, 0xee));
    fours[i] = add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const __m512d a = (__m512d)fours[2 * i], b = (__m512d)fours[2 * i + 1];
    twos[i] = add((__m512)_mm512_unpacklo_pd(a, b), (__m512)_mm512_unpackhi_pd(a, b));
  }
  return add(_mm512_shuffle_ps(twos[0], twos[1], 0x88), _mm512_shuffle_ps(twos[0], twos[1], 0xdd));
}

// R rows of weights and E entries, with the rows after them asked for if `Ahead`. The last vector of a
// row is filled up with zeros.
template <int R, int E, bool Ahead>
void dots(const BF16* weight, int64_t width, const Operand& x, const Target& to, int row, int entry) {
  __m512 sums[R * E] = {};
  const auto add = [&](int64_t i, auto at) {
    __m512bh xs[E];
#pragma GCC unroll 8
    for (int e = 0; e < E; ++e) xs[e] = (__m512bh)_mm512_loadu_si512(x.bf16(entry + e) + i);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh w = (__m512bh)at(weight + r * width + i);
      if (Ahead) __builtin_prefetch(weight + (R + r) * width + i);
#pragma GCC unroll 8
      for (int e = 0; e < E; ++e) {
        __m512& sum = sums[r * E + e];
        sum = _mm512_dpbf16_ps(sum, w, xs[e]);
      }
    }
  };
  int64_t i = 0;
  for (; i + 32 <= width; i += 32) add(i, [](const BF16* from) { return _mm512_loadu_si512(from); });
  if (i < width) {
    const __mmask32 rest = (1u << (width - i)) - 1;
    add(i, [rest](const BF16* from) { return _mm512_maskz_loadu_epi16(rest, from); });
  }
  if constexpr (R == 4 && E == 4) {
    alignas(64) float found[R * E];
    store(found, (Vec)sums_of(sums, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); }));
    for (int e = 0; e < E; ++e)
      for (int r = 0; r < R; ++r) to.put(row + r, entry + e, found[4 * e + r]);
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int e = 0; e < E; ++e) to.put(row + r, entry + e, sum((Vec)sums[r * E + e]));
  }
}

template <typename V>
V joined(V high, V low, V step) { return (high * 128.0f + low) * step; }

template <int R, int E, bool Ahead>
void dots(const int8_t* weight, int64_t width, const Operand& x, const Target& to, int row, int entry) {
  __m512i sums[2 * R * E] = {}, whole[R] = {};  // by halves, rows, entries
  const auto add = [&](int64_t i, auto at) {
    __m512i xs[2][E];
#pragma GCC unroll 8
    for (int e = 0; e < E; ++e)
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) xs[half][e] = _mm512_loadu_si512(x.int8(half, entry + e) + i);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512i w = at(weight + r * width + i);
      if (Ahead) __builtin_prefetch(weight + (R + r) * width + i);
      whole[r] = _mm512_dpbusd_epi32(whole[r], _mm512_set1_epi8(1), w);
#pragma GCC unroll 8
      for (int e = 0; e < E; ++e)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          __m512i& sum = sums[(half * R + r) * E + e];
          sum = _mm512_dpbusd_epi32(sum, xs[half][e], w);
        }
    }
  };
  int64_t i = 0;
  for (; i + 64 <= width; i += 64) add(i, [](const int8_t* from) { return _mm512_loadu_si512(from); });
  if (i < width) {
    const __mmask64 rest = (1ull << (width - i)) - 1;
    add(i, [rest](const int8_t* from) { return _mm512_maskz_loadu_epi8(rest, from); });
  }
  int offset[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) offset[r] = 128 * _mm512_reduce_add_epi32(whole[r]);
  if constexpr (R == 2 && E == 4) {
    alignas(64) int32_t found[16];
    _mm512_store_si512(found, (__m512i)sums_of(sums, [](__m512 a, __m512 b) {
                         return (__m512)_mm512_add_epi32((__m512i)a, (__m512i)b);
                       }));
    for (int e = 0; e < E; ++e)
      for (int r = 0; r < R; ++r) {
        const int *high = found + 4 * e, *low = high + R;
        to.put(row + r, entry + e, joined<float>(high[r] - offset[r], low[r], x.step(entry + e)));
      }
  } else {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int e = 0; e < E; ++e) {
        const int high = _mm512_reduce_add_epi32(sums[r * E + e]) - offset[r];
        const int low = _mm512_reduce_add_epi32(sums[(R + r) * E + e]);
        to.put(row + r, entry + e, joined<float>(high, low, x.step(entry + e)));
      }
  }
}

template <int R, int E, bool Ahead, typename T>
void dot_rows(const T* weight, int64_t width, const Operand& x, const Target& to, int first, int last,
              int entry) {
  int row = first;
  for (; row + R <= last; row += R) dots<R, E, Ahead>(weight + row * width, width, x, to, row, entry);
  for (; row < last; ++row) dots<1, E, Ahead>(weight + row * width, width, x, to, row, entry);
}

// Four, two or one of the entries from `entry` on; returns how many.
template <int R, bool Ahead, typename T>
int dot_some(const T* weight, int64_t width, const Operand& x, int count, const Target& to, int first,
             int last, int entry) {
  const int left = count - entry;
  if (left >= 4) return dot_rows<R, 4, Ahead>(weight, width, x, to, first, last, entry), 4;
  if (left >= 2) return dot_rows<R, 2, Ahead>(weight, width, x, to, first, last, entry), 2;
  return dot_rows<R, 1, Ahead>(weight, width, x, to, first, last, entry), 1;
}

constexpr int64_t kStripBytes = 1 << 14;

// A row after the other for one entry, which is how memory is read fastest. For more of them strips of
// rows, which come from memory for the first entries and are in the cache for the others.
template <typename T>
void by_vectors(const T* weight, int64_t width, const Operand& x, int count, const Target& to, int first,
                int last) {
  constexpr int R = 2 * sizeof(T);
  if (count == 1) return dot_rows<1, 1, false>(weight, width, x, to, first, last, 0);
  const int strip = std::max<int64_t>(4, kStripBytes / (width * sizeof(T)) / 4 * 4);
  for (int row = first; row < last; row += strip) {
    const int end = std::min(row + strip, last);
    int entry = dot_some<R, true>(weight, width, x, count, to, row, end, 0);
    while (entry < count) entry += dot_some<R, false>(weight, width, x, count, to, row, end, entry);
  }
}

// --- by panels: 16 entries side by side in the lanes, for sums that are exact in any order

// 16 rows x 16 entries of sums, one entry a vector, to their places.
inline void put_block(const Units* sums, const Target& to, int row, int n_rows, int entry, int n_entries) {
  Units block[16];
  transpose(sums, sizeof(Units), block);
  for (int e = 0; e < n_entries; ++e) {
    Vec v;
    std::memcpy(&v, &block[e], sizeof v);
    float* place = to.out + (entry + e) * to.stride + row;
    if (to.scale) v *= take(to.scale + row, n_rows);
    if (to.bias) v += take(to.bias + row, n_rows);
    assay::put(place, to.add ? take(place, n_rows) + v : v, n_rows);
  }
}

// The sums of R rows of weights, the 16 entries of a panel in the lanes.
template <int R>
void panel_sums(const int8_t* weight, int64_t width, const uint8_t* high, const uint8_t* low, __m512i* highs,
                __m512i* lows) {
  __m512i h[R] = {}, l[R] = {};
  const auto add = [&](int64_t i, int count) {
    const __m512i a = _mm512_loadu_si512(high + kPanel * i), b = _mm512_loadu_si512(low + kPanel * i);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      int32_t unit = 0;
      std::memcpy(&unit, weight + r * width + i, count);
      const __m512i w = _mm512_set1_epi32(unit);
      h[r] = _mm512_dpbusd_epi32(h[r], a, w);
      l[r] = _mm512_dpbusd_epi32(l[r], b, w);
    }
  };
  int64_t i = 0;
  for (; i + 4 <= width; i += 4) add(i, 4);
  if (i < width) add(i, width - i);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    highs[r] = h[r];
    lows[r] = l[r];
  }
}

// What 128 too much in every high half adds to a row's sums. It reads the row as one stream.
inline int offset_of(const int8_t* weight, int64_t width) {
  __m512i whole = {};
  int64_t i = 0;
  for (; i + 64 <= width; i += 64)
    whole = _mm512_dpbusd_epi32(whole, _mm512_set1_epi8(1), _mm512_loadu_si512(weight + i));
  const __mmask64 rest = (1ull << (width - i)) - 1;
  whole = _mm512_dpbusd_epi32(whole, _mm512_set1_epi8(1), _mm512_maskz_loadu_epi8(rest, weight + i));
  return 128 * _mm512_reduce_add_epi32(whole);
}

inline void by_panels(const int8_t* weight, int64_t width, const Operand& x, int count, const Target& to,
                      int first, int last) {
  for (int row = first; row < last; row += 16) {
    const int n_rows = std::min(16, last - row);
    const int8_t* from = weight + row * width;
    int offsets[16];
    for (int r = 0; r < n_rows; ++r) offsets[r] = offset_of(from + r * width, width);
    for (int entry = 0; entry < count; entry += kPanel) {
      const uint8_t *high = x.panel(0, entry / kPanel, true), *low = x.panel(1, entry / kPanel, true);
      __m512i highs[16], lows[16];
      int r = 0;
      for (; r + 8 <= n_rows; r += 8) panel_sums<8>(from + r * width, width, high, low, highs + r, lows + r);
      for (; r < n_rows; ++r) panel_sums<1>(from + r * width, width, high, low, highs + r, lows + r);
      Units block[16] = {};
      const Vec steps = load(x.steps() + entry);
      for (r = 0; r < n_rows; ++r) {
        const __m512i signed_high = _mm512_sub_epi32(highs[r], _mm512_set1_epi32(offsets[r]));
        block[r] = (Units)joined((Vec)_mm512_cvtepi32_ps(signed_high), (Vec)_mm512_cvtepi32_ps(lows[r]), steps);
      }
      put_block(block, to, row, n_rows, entry, std::min(kPanel, count - entry));
    }
  }
}

// --- by tiles: 16 rows of weights, 16 entries

#ifdef ASSAY_TILES

constexpr int kStripRows = 2 * kTileRows;

// The last columns of a strip, fewer than a tile has, filled up with zeros: in memory the next row stands
// behind them, and 0 times NaN is NaN.
template <typename T>
struct Tail {
  static constexpr int kColumns = kTileBytes / sizeof(T);
  alignas(64) T rows[kStripRows][kColumns] = {};

  Tail(const T* weight, int64_t width, int64_t first) {
    for (int r = 0; r < kStripRows; ++r)
      std::memcpy(rows[r], weight + r * width + first, sizeof(T) * (width - first));
  }
};

// Calls add(rows, stride in numbers, first column) for each tile's width of a strip, with what of the weights
// comes next asked for.
template <typename T, typename Add>
inline void along_strip(const T* weight, int64_t width, int64_t ahead, Add add) {
  constexpr int kColumns = Tail<T>::kColumns;
  int64_t i = 0;
  for (; i + kColumns <= width; i += kColumns) {
    add(weight + i, width, i);
    if (ahead)
      for (int r = 0; r < kStripRows; ++r) __builtin_prefetch(weight + ahead + r * width + i);
  }
  if (i == width) return;
  const Tail<T> tail(weight, width, i);
  add(tail.rows[0], kColumns, i);
}

// A strip of 32 rows of weights times a panel of 16 entries.
inline void tile_dots(const BF16* weight, int64_t width, int64_t ahead, const Operand& x, int panel,
                      Units (*out)[16]) {
  const uint8_t* entries = x.panel(0, panel, false);
  zero_tile<0>();
  zero_tile<2>();
  along_strip(weight, width, ahead, [entries](const BF16* rows, int64_t stride, int64_t i) {
    load_tile<6>(entries + i * 32, kTileBytes);
    load_tile<4>(rows, 2 * stride);
    dot_tiles_bf16<0, 4, 6>();
    load_tile<5>(rows + kTileRows * stride, 2 * stride);
    dot_tiles_bf16<2, 5, 6>();
  });
  store_tile<0>(out[0], kTileBytes);
  store_tile<2>(out[1], kTileBytes);
}

inline void tile_dots(const int8_t* weight, int64_t width, int64_t ahead, const Operand& x, int panel,
                      Units (*out)[16]) {
  const uint8_t *high = x.panel(0, panel, true), *low = x.panel(1, panel, true);
  alignas(64) int32_t sums[2][2][16][16];
  zero_tile<0>();
  zero_tile<1>();
  zero_tile<2>();
  zero_tile<3>();
  along_strip(weight, width, ahead, [high, low](const int8_t* rows, int64_t stride, int64_t i) {
    load_tile<6>(high + i * 16, kTileBytes);
    load_tile<7>(low + i * 16, kTileBytes);
    load_tile<4>(rows, stride);
    dot_tiles_int8<0, 4, 6>();
    dot_tiles_int8<1, 4, 7>();
    load_tile<5>(rows + kTileRows * stride, stride);
    dot_tiles_int8<2, 5, 6>();
    dot_tiles_int8<3, 5, 7>();
  });
  store_tile<0>(sums[0][0], kTileBytes);
  store_tile<1>(sums[0][1], kTileBytes);
  store_tile<2>(sums[1][0], kTileBytes);
  store_tile<3>(sums[1][1], kTileBytes);
  const Vec steps = load(x.steps() + panel * kPanel);
  for (int group = 0; group < 2; ++group)
    for (int r = 0; r < 16; ++r) {
      const Vec high_sum = (Vec)_mm512_cvtepi32_ps(_mm512_loadu_si512(sums[group][0][r]));
      const Vec low_sum = (Vec)_mm512_cvtepi32_ps(_mm512_loadu_si512(sums[group][1][r]));
      out[group][r] = (Units)joined(high_sum, low_sum, steps);
    }
}

template <typename T>
void by_tiles(const T* weight, int64_t width, int n_out, const Operand& x, int count, const Target& to,
              int first, int last) {
  std::vector<T, OnLines<T>> copied;
  for (int row = first; row < last; row += kStripRows) {
    const int n_rows = std::min(kStripRows, last - row);
    const T* from = weight + row * width;
    if (row + kStripRows > n_out) {  // the strip ends beyond the matrix
      copied.assign(kStripRows * width, T{});
      std::copy_n(from, n_rows * width, copied.begin());
      from = copied.data();
    }
    const int64_t ahead = count <= kPanel && row + 2 * kStripRows <= n_out ? kStripRows * width : 0;
    for (int panel = 0; panel * kPanel < count; ++panel) {
      Units out[2][16];
      tile_dots(from, width, ahead, x, panel, out);
      const int n_entries = std::min(kPanel, count - panel * kPanel);
      put_block(out[0], to, row, std::min(kTileRows, n_rows), panel * kPanel, n_entries);
      if (n_rows > kTileRows)
        put_block(out[1], to, row + kTileRows, n_rows - kTileRows, panel * kPanel, n_entries);
    }
  }
}
#endif

// Rows [first, last) of the outputs.
template <typename T>
void dot_products(const T* weight, [[maybe_unused]] int n_out, int64_t width, const Operand& x, int count,
                  const Target& to, int first, int last) {
#ifdef ASSAY_TILES
  if (in_tiles<BF16>()) return by_tiles(weight, width, n_out, x, count, to, first, last);
#endif
  if constexpr (sizeof(T) == 1)
    if (count >= kFewest) return by_panels(weight, width, x, count, to, first, last);
  by_vectors(weight, width, x, count, to, first, last);
}

}  // namespace
}  // namespace assay

#endif  // ASSAY_DOTS
