// AMX tiles: every tile instruction of the kernels, as inline assembly that tells what memory it touches.
//
// The intrinsics are not used, because GCC 12 declares less than the instructions read: `_tile_loadconfig`
// 8 of its 64 bytes, `_tile_loadd` nothing at all, and neither clobbers memory. The compiler then drops or
// moves stores to what a tile is loaded from: `ldtilecfg` faulted on a configuration whose widths had never
// been written, and products would have been wrong in silence. The compiler itself uses no tile register.

#pragma once

#include <cstdint>

// Clang before 15 spells these without the underscores between.
#if (defined(__AMX_TILE__) || defined(__AMXTILE__)) && (defined(__AMX_BF16__) || defined(__AMXBF16__)) && \
    (defined(__AMX_INT8__) || defined(__AMXINT8__)) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define ASSAY_TILES 1

namespace assay {
namespace {

constexpr int kTileRows = 16, kTileBytes = 64;  // of a row

// What `ldtilecfg` reads: palette 1, and the shape of each of its 8 tiles.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64);

// Whether the system lets this process have tiles; it is asked once (ARCH_REQ_XCOMP_PERM, XTILEDATA).
inline bool tiles_allowed() {
  static const bool allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return allowed;
}

// All tiles of this thread: 16 rows of 64 bytes.
inline void configure_tiles() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = kTileBytes;
    config.rows[i] = kTileRows;
  }
  asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
}

inline void release_tiles() { asm volatile("tilerelease" : : : "memory"); }

template <int kTile>
inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// Rows `stride` bytes apart.
template <int kTile>
inline void load_tile(const void* from, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride) : "memory");
}

template <int kTile>
inline void store_tile(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(to), "r"(stride) : "memory");
}

// C += A B, sums in float32 of products of bfloat16.
template <int kC, int kA, int kB>
inline void dot_tiles_bf16() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
}

// C += A B, sums in int32 of products of int8.
template <int kC, int kA, int kB>
inline void dot_tiles_int8() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
}

}  // namespace
}  // namespace assay
#endif
