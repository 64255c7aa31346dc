// Products of entries with weights: by vectors of float32 here, else by the instructions of dots.h.

#pragma once

#include "abi.h"
#include "dots.h"

namespace assay {
namespace {

// Rows that are taken with so many entries; how many entries are best taken together.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRowsOf[] = {0, 8, 8, 6, 6}, kBestEntries = 4;  // of 32 registers 24 hold sums
#else
constexpr int kRowsOf[] = {0, 8, 4, 4, 2}, kBestEntries = 3;  // 12 of 16
#endif
constexpr int kMostEntries = 4, kFewEntries = 16;

// With `Ahead` the weights come from memory: their rows are too short for the processor to see a
// stream in each, so those of the next tile are asked for.
template <int R, int E, bool Ahead, typename T>
void tile(const T* weight, const float* x, int64_t n_in, const Target& to, int row, int entry) {
  Vec sums[R][E] = {};
  const auto add = [&](auto at) {
    Vec xs[E];
#pragma GCC unroll 8
    for (int e = 0; e < E; ++e) xs[e] = held(at(x + e * n_in));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec w = held(at(weight + r * n_in));
#pragma GCC unroll 8
      for (int e = 0; e < E; ++e) sums[r][e] = fused(w, xs[e], sums[r][e]);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n_in; i += kLanes) {
    if (Ahead)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) __builtin_prefetch(weight + (R + r) * n_in + i);
    add([i](auto from) { return load(from + i); });
  }
  if (const int rest = n_in - i; rest > 0)
    add([i, rest](auto from) { return load_some(from + i, rest); });
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int e = 0; e < E; ++e) to.put(row + r, entry + e, sum(sums[r][e]));
}

template <int E, bool Ahead, typename T>
void rows_of(const T* weight, const float* x, int64_t n_in, const Target& to, int first, int last,
             int entry) {
  constexpr int R = kRowsOf[E];
  int row = first;
  for (; row + R <= last; row += R)
    tile<R, E, Ahead>(weight + (row - first) * n_in, x, n_in, to, row, entry);
  for (; row < last; ++row) tile<1, E, Ahead>(weight + (row - first) * n_in, x, n_in, to, row, entry);
}

template <bool Ahead, typename T>
void some_entries(const T* weight, const float* x, int count, int64_t n_in, const Target& to,
                  int first, int last, int entry) {
  switch (count) {
    case 1: return rows_of<1, Ahead>(weight, x, n_in, to, first, last, entry);
    case 2: return rows_of<2, Ahead>(weight, x, n_in, to, first, last, entry);
    case 3: return rows_of<3, Ahead>(weight, x, n_in, to, first, last, entry);
    default: return rows_of<4, Ahead>(weight, x, n_in, to, first, last, entry);
  }
}

// `weight` begins at row `first`; only the first entries meet it fresh from memory. Four entries are
// taken together where three at a time would leave some over.
template <typename T>
void all_entries(const T* weight, const float* x, int count, int64_t n_in, const Target& to,
                 int first, int last, bool ahead) {
  for (int e = 0, n; e < count; e += n) {
    const int left = count - e;
    n = left % kBestEntries ? std::min(left, kMostEntries) : kBestEntries;
    const float* from = x + e * n_in;
    if (ahead && e == 0)
      some_entries<true>(weight, from, n, n_in, to, first, last, e);
    else
      some_entries<false>(weight, from, n, n_in, to, first, last, e);
  }
}

// Weights go through the cache in strips, each of which meets all entries; with many entries a
// strip is widened to float32 once.
template <typename T>
void strips(const Matrix& m, const float* x, int count, const Target& to, int first, int last) {
  const int64_t n_in = m.n_in;
  const T* weight = static_cast<const T*>(m.weight);
  const bool widen = sizeof(T) < 4 && count > 2 * kMostEntries;
  const int strip = count <= kMostEntries ? last - first : kRowsOf[kBestEntries];
  Floats wide(widen ? strip * n_in : 0);
  for (int row = first; row < last; row += strip) {
    const int end = row + strip < last ? row + strip : last;
    const T* from = weight + row * n_in;
    if (!widen) {
      all_entries(from, x, count, n_in, to, row, end, count <= kFewEntries);
      continue;
    }
    const int64_t size = (end - row) * n_in;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      __builtin_prefetch(from + i + size);
      store(&wide[i], load(from + i));
    }
    if (i < size) store_some(&wide[i], load_some(from + i, size - i), size - i);
    all_entries(wide.data(), x, count, n_in, to, row, end, false);
  }
}

// Gets entries ready for products with weights like `m`; after it threads meet.
void prepare([[maybe_unused]] const Matrix& m, [[maybe_unused]] const float* x, [[maybe_unused]] int count,
             [[maybe_unused]] Operand& operand, [[maybe_unused]] Team team) {
#ifdef ASSAY_DOTS
  if (m.kind == kFloat32) return;
  operand.take_in(x, count, m.kind == kInt8, team);
  team.wait();
#endif
}

struct Rows {  // of outputs
  int first, last;
};

// f(rows) for pieces of so many outputs; returns when all are done.
template <typename F>
void share_rows(int n_out, Team team, F f) {
  const int tall = std::max(32, n_out / (8 * team.size) / 32 * 32);
  team.share((n_out + tall - 1) / tall, [&](int i) { f(Rows{i * tall, std::min(n_out, (i + 1) * tall)}); });
}

// Some rows of the outputs.
void linear(const Matrix& m, const float* x, [[maybe_unused]] const Operand& operand, int count, float* out, bool add,
            Rows rows) {
  const auto [first, last] = rows;
  const Target to{out, m.n_out, add, m.scale, m.bias};
#ifdef ASSAY_DOTS
  switch (m.kind) {
    case kBFloat16: return dot_products((const BF16*)m.weight, m.n_out, m.n_in, operand, count, to, first, last);
    case kInt8: return dot_products((const int8_t*)m.weight, m.n_out, m.n_in, operand, count, to, first, last);
  }
#endif
  switch (m.kind) {
    case kFloat32: return strips<float>(m, x, count, to, first, last);
    case kBFloat16: return strips<BF16>(m, x, count, to, first, last);
    case kInt8: return strips<int8_t>(m, x, count, to, first, last);
  }
}

}  // namespace
}  // namespace assay
