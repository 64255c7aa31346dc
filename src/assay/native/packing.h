// Matrices laid out for products: operands in float32 or bfloat16, a *unit* of 32 bits at a time.
//
// A unit is one float, or two neighbours in k. The right operand B (k x n) comes in panels of 16
// columns, [k / neighbours][16] units each. The left operand A (m x k) comes in rows, or, where it
// is the transpose of rows at hand, in groups of 16 rows that are laid out as panels or as tiles.

#pragma once

#include "tiles.h"
#include "vector.h"

namespace assay {
namespace {

constexpr int kPanel = 16;  // columns of B side by side
constexpr int kPad = 32;    // k is filled up with zeros to a multiple of it

inline int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

template <typename T>
constexpr int kNeighbours = 4 / sizeof(T);

template <typename T>
int64_t panel_size(int64_t k) { return padded(k) * kPanel; }

template <typename T>
int64_t panels_size(int64_t n, int64_t k) { return (n + kPanel - 1) / kPanel * panel_size<T>(k); }

// Whether products of T are taken tile by tile: 16 rows of A, 32 of k, 16 columns of B.
template <typename T>
bool in_tiles() {
#ifdef ASSAY_TILES
  return sizeof(T) == 2 && tiles_allowed();
#else
  return false;
#endif
}

// So many numbers of a row of A are read at once: rows are read up to the next multiple of it.
template <typename T>
int reads_at_once() { return in_tiles<T>() ? kPad : kNeighbours<T>; }

// --- units

typedef uint32_t Units __attribute__((vector_size(64)));

#if defined(__AVX2__) && !defined(__AVX512F__)
// 8 by 8 units; rows of `from` are `stride` bytes apart, those of `to` 16 units.
inline void transpose_eight(const char* from, int64_t stride, uint32_t* to) {
  __m256i r[8], t[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_si256((const __m256i*)(from + i * stride));
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = _mm256_unpacklo_epi64(t[i + j], t[i + j + 2]);
      r[i + 2 * j + 1] = _mm256_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_si256((__m256i*)(to + 16 * i), _mm256_permute2x128_si256(r[i], r[i + 4], 0x20));
    _mm256_storeu_si256((__m256i*)(to + 16 * (i + 4)), _mm256_permute2x128_si256(r[i], r[i + 4], 0x31));
  }
}
#endif

// 16 rows of 16 units, `stride` bytes apart, become the columns of `to`, whose rows are 16 units.
inline void transpose(const void* rows, int64_t stride, void* columns) {
  const char* from = static_cast<const char*>(rows);
  uint32_t* to = static_cast<uint32_t*>(columns);
#if defined(__AVX512F__)
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(from + i * stride);
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    _mm512_storeu_si512(to + 16 * i, _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88));
    _mm512_storeu_si512(to + 16 * (i + 8), _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd));
  }
#elif defined(__AVX2__)
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 16; j += 8) transpose_eight(from + i * stride + 4 * j, stride, to + 16 * j + i);
#else
  for (int i = 0; i < 16; ++i, from += stride) {
    uint32_t row[16];
    std::memcpy(row, from, sizeof row);
    for (int j = 0; j < 16; ++j) to[16 * j + i] = row[j];
  }
#endif
}

// 16 numbers, those beyond `count` 0, in the bits of T, each in 32 bits.
inline Units words(const float* from, int count, float) {
  Units found = {};
  if (count >= 16)
    std::memcpy(&found, from, sizeof found);
  else
    std::memcpy(&found, from, 4 * count);
  return found;
}

inline Units words(const BF16* from, int count, BF16) {
  uint16_t some[16] = {};
  if (count >= 16) {
#if defined(__AVX512F__)
    return (Units)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from));
#endif
    count = 16;
  }
  std::memcpy(some, from, 2 * count);
  Units found;
  for (int i = 0; i < 16; ++i) found[i] = some[i];
  return found;
}

inline Units words(const float* from, int count, BF16) {
  BF16 some[16] = {};
  float wide[16] = {};
  if (count < 16) {
    std::memcpy(wide, from, 4 * count);
    from = wide;
  }
  for (int i = 0; i < 16; i += kLanes) store(some + i, load(from + i));
  return words(some, 16, BF16());
}

// For each unit of 16 columns from `first` on: the number of the first row, then of the second.
inline Units interleaved(int first) {
  Units found;
  for (int i = 0; i < 16; ++i) found[i] = (first + i) | (first + i + 32) << 16;
  return found;
}

// Row u of units of a matrix with k rows: one row of floats, or two of bfloat16 side by side.
template <typename T, typename From>
Units unit_row(const From* from, int64_t stride, int k, int unit, int count) {
  const int row = unit * kNeighbours<T>;
  if (row >= k) return Units{};
  Units found = words(from + row * stride, count, T());
  if (kNeighbours<T> == 2 && row + 1 < k)
    found |= words(from + (row + 1) * stride, count, T()) << 16;
  return found;
}

// 16 units along a row, those beyond `count` numbers 0.
inline Units units_along(const float* from, int count, float) { return words(from, count, 0.0f); }

inline Units units_along(const BF16* from, int count, BF16) {
  Units found = {};
  if (count >= 32)
    std::memcpy(&found, from, sizeof found);
  else
    std::memcpy(&found, from, 2 * count);
  return found;
}

inline Units units_along(const float* from, int count, BF16) {
  BF16 some[32] = {};
  float wide[32] = {};
  if (count < 32) {
    std::memcpy(wide, from, 4 * count);
    from = wide;
  }
  for (int i = 0; i < 32; i += kLanes) store(some + i, load(from + i));
  return units_along(some, 32, BF16());
}

// --- packing

inline void put_units(void* to, Units units) { std::memcpy(to, &units, sizeof units); }

// Two panels of a row of units, 32 columns at once; false where it takes more than a few instructions.
template <typename T, typename From>
bool two_panels([[maybe_unused]] const From* from, [[maybe_unused]] int64_t stride, [[maybe_unused]] T* to,
                [[maybe_unused]] int64_t panel) {
  if constexpr (sizeof(T) == 4 && sizeof(From) == 4) {
    std::memcpy(to, from, 4 * kPanel);
    std::memcpy(to + panel, from + kPanel, 4 * kPanel);
    return true;
  }
#if defined(__AVX512BW__)
  if constexpr (sizeof(T) == 2 && sizeof(From) == 2) {
    const Units low = interleaved(0), high = interleaved(16);
    const __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + stride);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, (__m512i)low, b));
    _mm512_storeu_si512(to + panel, _mm512_permutex2var_epi16(a, (__m512i)high, b));
    return true;
  }
#endif
  return false;
}

// Rows [first, first + count) of k of all panels of B[k][n] = from[k - first][n], where `first` is a
// multiple of 32; what fills k up is written with the last of them. Panels are filled two at a time
// from end to end: to jump from one to the next with every line would go from page to page.
template <typename T, typename From>
void pack_rows(const From* from, int64_t stride, int first, int count, int n, T* to, int64_t panel) {
  constexpr int kTall = kNeighbours<T>;
  const int n_units = padded(count) / kTall;
  for (int column = 0; column < n; column += 2 * kPanel) {
    const From* in = from + column;
    T* at = to + column / kPanel * panel + int64_t(first) * kPanel;
    const int left = n - column;
    for (int u = 0; u < n_units; ++u, at += kPanel * kTall) {
      const bool whole = left >= 2 * kPanel && (u + 1) * kTall <= count;
      if (whole && two_panels(in + u * kTall * stride, stride, at, panel)) continue;
      put_units(at, unit_row<T>(in, stride, count, u, left));
      if (left > kPanel) put_units(at + panel, unit_row<T>(in + kPanel, stride, count, u, left - kPanel));
    }
  }
}

// Panels [first, last) of B[k][n] = from[n][k].
template <typename T, typename From>
void pack_columns(const From* from, int64_t stride, int k, int n, T* to, int first, int last) {
  constexpr int kAlong = 16 * kNeighbours<T>;
  const int64_t depth = padded(k);
  for (int panel = first; panel < last; ++panel) {
    T* out = to + panel * panel_size<T>(k);
    const int column = panel * kPanel, count = n - column < 16 ? n - column : 16;
    for (int i = 0; i < depth; i += kAlong, out += kAlong * kPanel) {
      const From* in = from + column * stride + i;
      if (sizeof(From) == sizeof(T) && count == 16 && k - i >= kAlong) {
        transpose(in, stride * sizeof(From), out);
        continue;
      }
      Units block[16] = {};
      if (i < k)
        for (int j = 0; j < count; ++j) block[j] = units_along(in + j * stride, k - i, T());
      transpose(block, sizeof(Units), out);
    }
  }
}

// A left operand: where its rows and units are.
template <typename T>
struct Left {
  const T* at;
  int64_t row, unit, group;  // numbers from one row, unit of k, group of 16 rows to the next

  static Left rows(const T* at, int64_t stride) { return {at, stride, kNeighbours<T>, 16 * stride}; }

  // A transpose of depth k, as `pack_turned` lays it out.
  static Left turned(const T* at, int64_t k) {
    const int64_t group = panel_size<T>(k);
    if (in_tiles<T>()) return {at, 32, 32, group};
    return {at, kNeighbours<T>, kPanel * kNeighbours<T>, group};
  }

  const T* row_at(uint64_t m) const { return at + m / 16 * group + m % 16 * row; }

  // From row `m` and number `k` on, both at the beginning of a group, or of 32.
  Left from(uint64_t m, uint64_t k) const {
    return {row_at(m) + k / kNeighbours<T> * unit, row, unit, group};
  }
  Left from_row(uint64_t m) const { return {at + m * row, row, unit, group}; }  // of rows
};

// Columns [first, first + count) of k of A[m][k] = from[k - first][m], where `first` is a multiple
// of 32 and k_all the whole depth.
template <typename T>
void pack_turned(const T* from, int64_t stride, int first, int count, int m, T* to, int64_t k_all) {
  const int64_t group = panel_size<T>(k_all);
  if (!in_tiles<T>()) return pack_rows(from, stride, first, count, m, to, group);
  for (int i = 0; i < count; i += 32)
    for (int row = 0; row < m; row += 16) {
      Units block[16];
      for (int u = 0; u < 16; ++u)
        block[u] = unit_row<T>(from + i * stride + row, stride, count - i, u, m - row);
      transpose(block, sizeof(Units), to + row / 16 * group + int64_t(first + i) * kPanel);
    }
}

}  // namespace
}  // namespace assay
