// Matrix products C = A B, summed in float32. Every sum goes through k in order, whatever is computed
// beside it: the bits of an element depend on its row of A, its column of B and on nothing else.

#pragma once

#include <algorithm>
#include <type_traits>

#include "packing.h"

namespace assay {
namespace {

constexpr int kDepth = 512;         // of k at a time: two panels of it stay in the nearest cache
constexpr int kHeight = 128;        // rows of A that are done, over kReach of k, before the next ones:
constexpr int kReach = 3 * kDepth;  // they stay in the next cache
constexpr int kHeightOfTiles = 64, kReachOfTiles = kDepth;

// --- the innermost loops

// How many of the 16 columns a panel, or of the lanes of a vector, are there.
inline int within(int columns, int v) {
  const int left = columns - v * kLanes;
  return left < 0 ? 0 : left < kLanes ? left : kLanes;
}

template <int R, int V>
__attribute__((always_inline)) inline void start(Vec (&sums)[R][V], const float* seed, int64_t stride,
                                                 int columns) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, seed += seed ? stride : 0)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sums[r][v] = seed ? take(seed + v * kLanes, within(columns, v)) : Vec{};
}

template <int R, int V>
__attribute__((always_inline)) inline void finish(const Vec (&sums)[R][V], float* c, int64_t stride,
                                                  int columns) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, c += stride)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) put(c + v * kLanes, sums[r][v], within(columns, v));
}

// sum + a b, where `a` is a unit of A, for every lane, and `b` has one of B in each.
inline Vec add_product(Vec sum, uint32_t a, Vec b, float) {
  float value;
  std::memcpy(&value, &a, 4);
  return fused(splat(value), b, sum);
}

inline Vec add_product(Vec sum, [[maybe_unused]] uint32_t a, [[maybe_unused]] Vec b, BF16) {
#if defined(__AVX512BF16__)
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
#else
  return sum;  // never asked for
#endif
}

#if defined(__AVX512F__)
constexpr int kManyRows = 12, kSomeRows = 8, kFewRows = 4, kFewPanels = 2;  // 24 of 32 registers hold sums
#elif defined(__AVX__)
constexpr int kManyRows = 6, kSomeRows = 4, kFewRows = 2, kFewPanels = 1;  // 12 of 16
#elif defined(__aarch64__)
constexpr int kManyRows = 6, kSomeRows = 4, kFewRows = 2, kFewPanels = 1;  // 24 of 32
#else
constexpr int kManyRows = 3, kSomeRows = 2, kFewRows = 1, kFewPanels = 1;  // 12 of 16
#endif

// So many of R rows share an address: the largest power of two that divides R and every row they may
// begin at. It divides 16 too, so rows that share one are of one group.
template <int R>
constexpr int kShare = (R | kManyRows) & -(R | kManyRows);

// R rows from `row` on and P panels, in registers. All loops over them are unrolled, or GCC keeps the
// sums in memory; rows share addresses and this is a function of its own, or it keeps addresses there.
template <int R, int P, typename T>
__attribute__((noinline)) void few(const Left<T>& a, int row, const T* b, int64_t panel, int k, float* c,
                                   int64_t c_stride, int columns, const float* seed) {
  constexpr int kVecs = P * kPanel / kLanes, kSame = kShare<R>, kWide = kNeighbours<T>;
  Vec sums[R][kVecs];
  start<R, kVecs>(sums, seed, c_stride, columns);
  const T* at[R / kSame];
#pragma GCC unroll 4
  for (int s = 0; s < R / kSame; ++s) at[s] = a.row_at(row + s * kSame);
  const int64_t next = a.row, unit = a.unit;
  for (int i = (k + kWide - 1) / kWide; i > 0; --i, b += kPanel * kWide) {
    Vec bs[kVecs];
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v)
      std::memcpy(&bs[v], b + v * kLanes / kPanel * panel + v * kLanes % kPanel * kWide, sizeof bs[v]);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      uint32_t as;
      std::memcpy(&as, at[r / kSame] + r % kSame * next, 4);
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sums[r][v] = add_product(sums[r][v], as, bs[v], T());
    }
#pragma GCC unroll 4
    for (int s = 0; s < R / kSame; ++s) at[s] += unit;
  }
  finish<R, kVecs>(sums, c, c_stride, columns);
}

template <int P, typename T>
void rows_of(Left<T> a, int m, const T* b, int64_t panel, int k, float* c, int64_t c_stride,
             int columns, const float* seed) {
  int row = 0;
  const auto by = [&](auto rows) {
    constexpr int R = decltype(rows)::value;
    for (; row + R <= m; row += R)
      few<R, P>(a, row, b, panel, k, c + row * c_stride, c_stride, columns,
                seed ? seed + row * c_stride : nullptr);
  };
  by(std::integral_constant<int, kManyRows>());
  by(std::integral_constant<int, kSomeRows>());
  by(std::integral_constant<int, kFewRows>());
  by(std::integral_constant<int, 1>());
}

#ifdef ASSAY_TILES
// The tiles of C are registers 0 to 3, those of A 4 and 5, those of B 6 and 7.
template <int R, int P>
void tile(const BF16* a, const Left<BF16>& like, const BF16* b, int64_t panel, int k, float* c,
          int64_t c_stride, const float* seed) {
  const int64_t step = 4 * c_stride, a_step = 2 * like.row, along = 16 * like.unit, group = like.group;
  if (seed) {
    load_tile<0>(seed, step);
    if (P == 2) load_tile<1>(seed + 16, step);
    if (R == 2) load_tile<2>(seed + 16 * c_stride, step);
    if (R == 2 && P == 2) load_tile<3>(seed + 16 * c_stride + 16, step);
  } else {
    zero_tile<0>();
    if (P == 2) zero_tile<1>();
    if (R == 2) zero_tile<2>();
    if (R == 2 && P == 2) zero_tile<3>();
  }
  for (int i = 0; i < k; i += 32, a += along) {
    load_tile<6>(b + i * kPanel, kTileBytes);
    load_tile<4>(a, a_step);
    dot_tiles_bf16<0, 4, 6>();
    if (P == 2) {
      load_tile<7>(b + panel + i * kPanel, kTileBytes);
      dot_tiles_bf16<1, 4, 7>();
    }
    if (R == 2) {
      load_tile<5>(a + group, a_step);
      dot_tiles_bf16<2, 5, 6>();
      if (P == 2) dot_tiles_bf16<3, 5, 7>();
    }
  }
  store_tile<0>(c, step);
  if (P == 2) store_tile<1>(c + 16, step);
  if (R == 2) store_tile<2>(c + 16 * c_stride, step);
  if (R == 2 && P == 2) store_tile<3>(c + 16 * c_stride + 16, step);
}

// At an edge of C the tiles go through memory of their own.
template <int R, int P>
void tile_some(const BF16* a, const Left<BF16>& like, const BF16* b, int64_t panel, int k, float* c,
               int64_t c_stride, int rows, int columns, const float* seed) {
  constexpr int kWide = 16 * P;
  if (rows >= 16 * R && columns >= kWide) return tile<R, P>(a, like, b, panel, k, c, c_stride, seed);
  alignas(64) float some[16 * R * kWide] = {};
  const int m = rows < 16 * R ? rows : 16 * R, n = columns < kWide ? columns : kWide;
  if (seed)
    for (int r = 0; r < m; ++r) std::memcpy(some + r * kWide, seed + r * c_stride, 4 * n);
  tile<R, P>(a, like, b, panel, k, some, kWide, seed ? some : nullptr);
  for (int r = 0; r < m; ++r) std::memcpy(c + r * c_stride, some + r * kWide, 4 * n);
}

template <int P>
void rows_of_tiles(Left<BF16> a, int m, const BF16* b, int64_t panel, int k, float* c,
                   int64_t c_stride, int columns, const float* seed) {
  int row = 0;
  const auto at = [&](auto rows) {
    tile_some<decltype(rows)::value, P>(a.from(row, 0).at, a, b, panel, k, c + row * c_stride, c_stride,
                                        m - row, columns, seed ? seed + row * c_stride : nullptr);
    row += 16 * decltype(rows)::value;
  };
  while (row + 16 < m) at(std::integral_constant<int, 2>());
  if (row < m) at(std::integral_constant<int, 1>());
}
#endif

// While one exists, this thread's tiles are set up for products.
template <typename T>
class Ready {
 public:
#ifdef ASSAY_TILES
  Ready() {
    if (in_tiles<T>()) configure_tiles();
  }
  ~Ready() {
    if (in_tiles<T>()) release_tiles();
  }
  Ready(const Ready&) = delete;
#else
  Ready() {}
#endif
};

template <int P, typename T>
void some_panels(Left<T> a, int m, const T* b, int64_t panel, int k, float* c, int64_t c_stride,
                 int columns, const float* seed) {
#ifdef ASSAY_TILES
  if constexpr (sizeof(T) == 2)
    if (in_tiles<T>()) return rows_of_tiles<P>(a, m, b, panel, k, c, c_stride, columns, seed);
#endif
  rows_of<P>(a, m, b, panel, k, c, c_stride, columns, seed);
}

// C (m x n) = A B, upon `seed` if there is one, which lies as C does and may be C. `panel` is the
// distance of two panels of B. In bfloat16 rows of A are read up to the next multiple of 32 in both
// directions (by tiles; of 2 along k by vectors). Beyond the last row anything may stand, since it reaches no
// element of C. Beyond `k` zeros have to stand: they meet zeros of B, and 0 times NaN is NaN.
template <typename T>
void multiply(Left<T> a, int m, const T* b, int64_t panel, int n, int k, float* c, int64_t c_stride,
              const float* seed) {
#ifdef ASSAY_TILES
  constexpr int kWide = 2;
#else
  constexpr int kWide = kFewPanels;
#endif
  const int height = in_tiles<T>() ? kHeightOfTiles : kHeight;
  const int reach = in_tiles<T>() ? kReachOfTiles : kReach;
  for (int far = 0; far < k; far += reach)
    for (int row = 0; row < m; row += height)
      for (int column = 0; column < n; column += kWide * kPanel)
        for (int i = far; i < k && i < far + reach; i += kDepth) {
          const int deep = std::min(k - i, kDepth), high = std::min(m - row, height);
          const Left<T> from = a.from(row, i);
          const T* at = b + column / kPanel * panel + int64_t(i) * kPanel;
          const int64_t place = row * c_stride + column;
          const float* upon = i ? c + place : seed ? seed + place : nullptr;
          if (kWide > 1 && n - column > kPanel)
            some_panels<kWide>(from, high, at, panel, deep, c + place, c_stride, n - column, upon);
          else
            some_panels<1>(from, high, at, panel, deep, c + place, c_stride, n - column, upon);
        }
}

}  // namespace
}  // namespace assay
