// Products of tiles beside plain loops: for amx_instructions.cpp.

#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <random>

#include "amx_tiles.h"

namespace {

constexpr Shape kShapes[] = {{16, 16, 16}, {1, 1, 1}, {3, 5, 7}, {16, 4, 9}, {8, 16, 2}, {13, 1, 16}};

struct Operands {
  uint8_t c[16][64], a[16][64], b[16][64];
};

Operands numbers(unsigned seed) {
  Operands found;
  fill(&found, sizeof found, seed);
  return found;
}

// Exponents of A, B and C, with the bias: a lowest one, and how many from there on.
struct Range {
  unsigned lowest, count;
};
struct Ranges {
  Range a, b, c;
};
constexpr Ranges kRanges[] = {
    {{120, 16}, {120, 16}, {120, 16}},
    {{0, 256}, {0, 256}, {0, 256}},  // any, also infinities and no numbers
    {{60, 8}, {60, 8}, {0, 8}},      // of which products are too small to be normal, but not their sums
    {{0, 1}, {220, 8}, {120, 16}},   // subnormal numbers that would be something if they were not taken for 0
    {{125, 4}, {125, 4}, {0, 1}},    // upon subnormal numbers
};

void fill_bf16(uint8_t* to, size_t bytes, std::mt19937& next, Range exponents) {
  fill(to, bytes, next());
  for (size_t i = 0; i < bytes; i += 2) {
    const unsigned exponent = exponents.lowest + next() % exponents.count;
    to[i] = (to[i] & 0x7f) | exponent << 7;
    to[i + 1] = (to[i + 1] & 0x80) | exponent >> 1;
  }
}

Operands bf16_numbers(unsigned seed) {
  std::mt19937 next(seed);
  const Ranges ranges = kRanges[seed % 5];
  Operands found;
  fill_bf16(found.a[0], sizeof found.a, next, ranges.a);
  fill_bf16(found.b[0], sizeof found.b, next, ranges.b);
  fill_bf16(found.c[0], sizeof found.c, next, ranges.c);
  return found;
}

float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

float widened(const uint8_t* at) {
  uint32_t bits = (at[0] | at[1] << 8) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return flushed(value);
}

void dot_bf16(uint8_t* c, const uint8_t* a, const uint8_t (*b)[64], int column, int depth) {
  float halves[2] = {}, sum;
  for (int k = 0; k < depth; ++k)
    for (int i = 0; i < 2; ++i) {
      const float as = widened(a + 4 * k + 2 * i), bs = widened(b[k] + 4 * column + 2 * i);
      halves[i] = flushed(std::fma(as, bs, halves[i]));
    }
  std::memcpy(&sum, c, 4);
  sum = flushed(flushed(sum) + flushed(halves[0] + halves[1]));
  std::memcpy(c, &sum, 4);
}

template <typename A, typename B>
void dot_bytes(uint8_t* c, const uint8_t* a, const uint8_t (*b)[64], int column, int depth) {
  uint32_t sum;
  std::memcpy(&sum, c, 4);
  for (int k = 0; k < depth; ++k)
    for (int i = 0; i < 4; ++i) sum += uint32_t(int(A(a[4 * k + i])) * int(B(b[k][4 * column + i])));
  std::memcpy(c, &sum, 4);
}

// Equal bits, or both no number: which one a processor takes is another thing.
bool same(const uint8_t* found, const uint8_t* meant, bool floats) {
  float x, y;
  std::memcpy(&x, found, 4);
  std::memcpy(&y, meant, 4);
  return !std::memcmp(found, meant, 4) || (floats && std::isnan(x) && std::isnan(y));
}

template <typename Multiply, typename Dot>
void products(const char* name, Operands (*operands)(unsigned), Multiply multiply, Dot dot) {
  unsigned seed = 0;
  for (int round = 0; round < 20; ++round)
    for (const auto [m, n, k] : kShapes) {
      Operands one = operands(++seed);
      Data found = {};
      Config().tile(2, m, 4 * n).tile(7, m, 4 * k).tile(4, k, 4 * n).load();
      load<2>(one.c, 64);
      load<7>(one.a, 64);
      load<4>(one.b, 64);
      multiply();
      store<2>(found, 64);
      bool right = true;
      for (int row = 0; row < m; ++row)
        for (int column = 0; column < n; ++column) {
          uint8_t* c = one.c[row] + 4 * column;
          dot(c, one.a[row], one.b, column, k);
          right &= same(found[row] + 4 * column, c, operands == bf16_numbers);
        }
      check(right, "%s %d x %d x %d, seed %u", name, m, n, k, seed);
    }
}

void all_products() {
  products("tdpbf16ps", bf16_numbers, [] { _tile_dpbf16ps(2, 7, 4); }, dot_bf16);
  products("tdpbssd", numbers, [] { _tile_dpbssd(2, 7, 4); }, dot_bytes<int8_t, int8_t>);
  products("tdpbsud", numbers, [] { _tile_dpbsud(2, 7, 4); }, dot_bytes<int8_t, uint8_t>);
  products("tdpbusd", numbers, [] { _tile_dpbusd(2, 7, 4); }, dot_bytes<uint8_t, int8_t>);
  products("tdpbuud", numbers, [] { _tile_dpbuud(2, 7, 4); }, dot_bytes<uint8_t, uint8_t>);
}

}  // namespace
