// Tile instructions with what they read and write told to the compiler, configurations, and checks: for
// amx_instructions.cpp.

#pragma once

#include <cstdint>
#include <cstdio>
#include <random>

namespace {

template <int Tile>
void load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
void store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
void zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(Tile));
}

void release() { asm volatile("tilerelease"); }

struct Config {
  uint8_t bytes[64] = {1};
  Config& tile(int i, int rows, int row_bytes) {
    bytes[16 + 2 * i] = row_bytes;
    bytes[48 + i] = rows;
    return *this;
  }
  void load() const { asm volatile("ldtilecfg %0" : : "m"(bytes)); }
};

Config whole() {
  Config config;
  for (int i = 0; i < 8; ++i) config.tile(i, 16, 64);
  return config;
}

typedef uint8_t Data[16][64];

struct Shape {
  int m, n, k;
};

int checks = 0;

template <typename... Arguments>
void check(bool right, const char* what, Arguments... arguments) {
  ++checks;
  if (right) return;
  std::printf(what, arguments...);
  std::printf("\n");
}

void fill(void* to, size_t count, unsigned seed) {
  std::mt19937 next(seed);
  for (size_t i = 0; i < count; ++i) static_cast<uint8_t*>(to)[i] = next();
}

}  // namespace
