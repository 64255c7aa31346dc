// What a processor refuses, by name: for amx_instructions.cpp.

#pragma once

#include <immintrin.h>
#include <signal.h>

#include <thread>

#include "amx_tiles.h"

namespace {

alignas(64) uint8_t some_data[1024];

void load_with(int at, uint8_t byte) {
  Config config = whole();
  config.bytes[at] = byte;
  config.load();
}

void load_from(const void* at) { load<0>(at, 64); }

// Of C, A and B.
void multiply_shapes(Shape c, Shape a, Shape b) {
  Config().tile(0, c.m, 4 * c.n).tile(1, a.m, 4 * a.k).tile(2, b.k, 4 * b.n).load();
  _tile_dpbf16ps(0, 1, 2);
}

struct Refused {
  const char* name;
  void (*run)();
};

const Refused kRefused[] = {
    {"palette", [] { load_with(0, 2); }},
    {"rows", [] { load_with(48, 17); }},
    {"bytes", [] { load_with(16, 68); }},
    {"many bytes", [] { load_with(17, 1); }},
    {"reserved", [] { load_with(2, 1); }},
    {"ninth bytes", [] { load_with(32, 4); }},
    {"ninth rows", [] { load_with(56, 4); }},
    {"no bytes", [] { load_with(16, 0); }},
    {"no rows", [] { load_with(48, 0); }},
    {"no configuration", [] { load_from(some_data); }},
    {"released", [] { whole().load(); release(); zero<0>(); }},
    {"stored", [] { store<1>(some_data, 64); }},
    {"multiplied", [] { _tile_dpbssd(0, 1, 2); }},
    {"thread", [] { whole().load(); std::thread([] { zero<0>(); }).join(); }},
    {"no tile", [] { Config().tile(1, 16, 64).load(); zero<0>(); }},
    {"odd bytes", [] { Config().tile(0, 16, 62).load(); zero<0>(); }},
    {"first row", [] { load_with(1, 16); load_from(some_data); }},
    {"tile 8", [] { whole().load(); asm volatile(".byte 0xc4, 0x62, 0x7b, 0x49, 0xc0"); }},
    {"no stride", [] { whole().load(); asm volatile(".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x00" : : "a"(some_data)); }},
    {"relative", [] { whole().load(); asm volatile(".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x05, 0, 0, 0, 0"); }},
    {"same tiles", [] { whole().load(); asm volatile(".byte 0xc4, 0xe2, 0x6a, 0x5c, 0xc2"); }},
    {"m", [] { multiply_shapes({8, 16, 0}, {9, 0, 16}, {0, 16, 16}); }},
    {"n", [] { multiply_shapes({8, 16, 0}, {8, 0, 16}, {0, 15, 16}); }},
    {"k", [] { multiply_shapes({8, 16, 0}, {8, 0, 16}, {0, 16, 15}); }},
    {"null", [] { whole().load(); load_from(nullptr); }},
    {"ud2", [] { asm volatile("ud2"); }},
    {"no amx", [] { asm volatile(".byte 0xc4, 0xe2, 0xfb, 0x49, 0xc0"); }},  // W is 1
    {"raised", [] { raise(SIGILL); }},
};

}  // namespace
