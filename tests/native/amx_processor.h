// The part of AMX's processor for amx_emulator.cpp: a thread's tile registers, what each instruction does to
// them as Intel's manual says (Software Developer's Manual, volume 2), and how instructions are encoded.

#pragma once

#include <immintrin.h>
#include <signal.h>
#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace {

// --- the registers

constexpr int kTiles = 8, kRows = 16, kRowBytes = 64;

// The 64 bytes that `ldtilecfg` reads; all are zero where no configuration is loaded.
struct Config {
  uint8_t palette, start_row, reserved[14], row_bytes_of[32], rows_of[16];

  int rows(int tile) const { return rows_of[tile]; }
  int row_bytes(int tile) const { return row_bytes_of[2 * tile] | row_bytes_of[2 * tile + 1] << 8; }
  __mmask64 columns(int tile) const { return ~0ull >> (64 - row_bytes(tile)); }  // of a tile that has some
  int take_start_row() {  // every tile instruction sets it to 0
    const int start = start_row;
    start_row = 0;
    return start;
  }
};

// A thread's own, reserved when it begins: a handler may allocate nothing. What is in a tile beyond the rows
// and columns that it is configured to have reaches no memory.
typedef uint8_t Tile[kRows][kRowBytes];
#define PER_THREAD thread_local __attribute__((tls_model("initial-exec")))
PER_THREAD Config config;
alignas(64) PER_THREAD Tile tiles[kTiles];

void release() {
  std::memset(&config, 0, sizeof config);
  std::memset(tiles, 0, sizeof tiles);
}

// --- one instruction

struct Instruction;

// Why the processor refuses an instruction, and the signal that Linux makes of it.
struct Fault {
  const char* why = nullptr;
  int signal = 0;
};

constexpr Fault undefined(const char* why) { return {why, SIGILL}; }   // #UD
constexpr Fault protection(const char* why) { return {why, SIGSEGV}; }  // #GP

struct Opcode {
  uint8_t byte, prefix;  // of the field `pp` of VEX: 0 none, 1 66, 2 F3, 3 F2
  bool memory;
  const char* name;
  Fault (*run)(const Instruction&);
};

struct Instruction {
  const Opcode* opcode;
  int length;
  int reg, rm, vvvv;  // numbers of registers; `rm` where there is no operand in memory
  bool sib;
  uint64_t address, stride;
};

// --- what they do

bool reserved_are_zero(const Config& asked) {
  uint8_t all = 0;
  for (uint8_t byte : asked.reserved) all |= byte;
  for (int i = 2 * kTiles; i < 32; ++i) all |= asked.row_bytes_of[i];
  for (int i = kTiles; i < 16; ++i) all |= asked.rows_of[i];
  return all == 0;
}

Fault check_config(const Config& asked) {
  if (asked.palette > 1) return protection("the palette is neither 0 nor 1");
  if (!asked.palette) return {};
  if (!reserved_are_zero(asked)) return protection("a reserved byte of the configuration is not 0");
  for (int tile = 0; tile < kTiles; ++tile) {
    if (asked.row_bytes(tile) > kRowBytes) return protection("a tile has more than 64 bytes in a row");
    if (asked.rows(tile) > kRows) return protection("a tile has more than 16 rows");
    if (!asked.rows(tile) != !asked.row_bytes(tile))
      return protection("a tile has rows of no bytes, or bytes in no rows");
  }
  return {};
}

Fault ldtilecfg(const Instruction& one) {
  Config asked;
  std::memcpy(&asked, (const void*)one.address, sizeof asked);
  if (const Fault fault = check_config(asked); fault.why) return fault;
  release();
  if (asked.palette) config = asked;
  return {};
}

Fault sttilecfg(const Instruction& one) {
  std::memcpy((void*)one.address, &config, sizeof config);
  return {};
}

Fault tilerelease(const Instruction&) {
  release();
  return {};
}

Fault check_tile(int tile) {
  if (!config.palette) return undefined("no configuration is loaded");
  if (tile >= kTiles) return undefined("there are only 8 tiles");
  if (!config.rows(tile)) return undefined("the configuration has no rows for a tile that it names");
  if (config.row_bytes(tile) % 4) return undefined("the bytes in a tile's row are no multiple of 4");
  return {};
}

Fault tilezero(const Instruction& one) {
  if (const Fault fault = check_tile(one.reg); fault.why) return fault;
  config.take_start_row();
  std::memset(tiles[one.reg], 0, sizeof tiles[0]);
  return {};
}

Fault check_rows(const Instruction& one) {
  if (!one.sib) return undefined("its operand has no SIB byte (base and stride)");
  if (const Fault fault = check_tile(one.reg); fault.why) return fault;
  if (config.start_row >= config.rows(one.reg))
    return undefined("the configuration's first row is beyond the tile");
  return {};
}

Fault tileload(const Instruction& one) {
  if (const Fault fault = check_rows(one); fault.why) return fault;
  const __mmask64 columns = config.columns(one.reg);
  const int first = config.take_start_row(), end = config.rows(one.reg);
  for (int row = first; row < end; ++row)
    _mm512_store_si512(tiles[one.reg][row],
                       _mm512_maskz_loadu_epi8(columns, (const void*)(one.address + row * one.stride)));
  return {};
}

Fault tilestored(const Instruction& one) {
  if (const Fault fault = check_rows(one); fault.why) return fault;
  const __mmask64 columns = config.columns(one.reg);
  const int first = config.take_start_row(), end = config.rows(one.reg);
  for (int row = first; row < end; ++row)
    _mm512_mask_storeu_epi8((void*)(one.address + row * one.stride), columns,
                            _mm512_load_si512(tiles[one.reg][row]));
  return {};
}

// C (m x n) += A (m x k) B (k x n): C is `reg`, A is `rm`, B is `vvvv`.
Fault check_product(const Instruction& one) {
  const int c = one.reg, a = one.rm, b = one.vvvv;
  for (int tile : {c, a, b})
    if (const Fault fault = check_tile(tile); fault.why) return fault;
  if (c == a || a == b || c == b) return undefined("two of its tiles are the same");
  if (config.rows(c) != config.rows(a)) return undefined("C and A differ in rows");
  if (config.row_bytes(c) != config.row_bytes(b)) return undefined("C and B differ in columns");
  if (config.row_bytes(a) != 4 * config.rows(b))
    return undefined("A has not as many columns (of 4 bytes) as B has rows");
  return {};
}

template <typename AddRow>
Fault product(const Instruction& one, AddRow add_row) {
  if (const Fault fault = check_product(one); fault.why) return fault;
  config.take_start_row();
  const auto *a = tiles[one.rm], *b = tiles[one.vvvv];
  auto* c = tiles[one.reg];
  for (int row = 0; row < config.rows(one.reg); ++row) {
    const __m512i sum = add_row(_mm512_load_si512(c[row]), a[row], b, config.rows(one.vvvv));
    _mm512_store_si512(c[row], sum);
  }
  return {};
}

// The two halves of pairs are summed apart over k, then together, then upon C. The manual has fused
// multiply-adds that round to nearest even, take subnormal numbers for zero and give zero for them.
__m512i add_bf16_row(__m512i c, const uint8_t* a, const uint8_t (*b)[kRowBytes], int depth) {
  const __m512i upper = _mm512_set1_epi32(int(0xffff0000));
  const auto low_half = [](__m512i x) { return (__m512)_mm512_slli_epi32(x, 16); };
  const auto high_half = [&](__m512i x) { return (__m512)_mm512_and_si512(x, upper); };
  __m512 first = {}, second = {};
  for (int k = 0; k < depth; ++k) {
    int32_t pair;
    std::memcpy(&pair, a + 4 * k, 4);
    const __m512i as = _mm512_set1_epi32(pair), bs = _mm512_load_si512(b[k]);
    first = _mm512_fmadd_ps(low_half(as), low_half(bs), first);
    second = _mm512_fmadd_ps(high_half(as), high_half(bs), second);
  }
  return (__m512i)_mm512_add_ps((__m512)c, _mm512_add_ps(first, second));
}

Fault tdpbf16ps(const Instruction& one) {
  const uint32_t mxcsr = 0x9fc0;  // round to nearest even; subnormal numbers are zero, in and out
  asm volatile("ldmxcsr %0" : : "m"(mxcsr) : "memory");  // what it was returns with the signal
  return product(one, add_bf16_row);
}

// Bytes 0 and 2, or 1 and 3, of each 32 bits as 16-bit numbers.
template <bool Signed>
__m512i even_bytes(__m512i x) {
  return Signed ? _mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8) : _mm512_and_si512(x, _mm512_set1_epi16(255));
}
template <bool Signed>
__m512i odd_bytes(__m512i x) {
  return Signed ? _mm512_srai_epi16(x, 8) : _mm512_srli_epi16(x, 8);
}

template <bool SignedA, bool SignedB>
__m512i add_byte_row(__m512i c, const uint8_t* a, const uint8_t (*b)[kRowBytes], int depth) {
  for (int k = 0; k < depth; ++k) {
    int32_t four;
    std::memcpy(&four, a + 4 * k, 4);
    const __m512i as = _mm512_set1_epi32(four), bs = _mm512_load_si512(b[k]);
    c = _mm512_add_epi32(c, _mm512_madd_epi16(even_bytes<SignedA>(as), even_bytes<SignedB>(bs)));
    c = _mm512_add_epi32(c, _mm512_madd_epi16(odd_bytes<SignedA>(as), odd_bytes<SignedB>(bs)));
  }
  return c;
}

template <bool SignedA, bool SignedB>
Fault tdpb(const Instruction& one) {
  return product(one, add_byte_row<SignedA, SignedB>);
}

constexpr Opcode kOpcodes[] = {
    {0x49, 0, true, "ldtilecfg", ldtilecfg},
    {0x49, 0, false, "tilerelease", tilerelease},
    {0x49, 1, true, "sttilecfg", sttilecfg},
    {0x49, 3, false, "tilezero", tilezero},
    {0x4b, 1, true, "tileloaddt1", tileload},
    {0x4b, 2, true, "tilestored", tilestored},
    {0x4b, 3, true, "tileloadd", tileload},
    {0x5c, 2, false, "tdpbf16ps", tdpbf16ps},
    {0x5e, 0, false, "tdpbuud", tdpb<false, false>},
    {0x5e, 1, false, "tdpbusd", tdpb<false, true>},
    {0x5e, 2, false, "tdpbsud", tdpb<true, false>},
    {0x5e, 3, false, "tdpbssd", tdpb<true, true>},
};

// --- decoding: C4, two bytes of VEX, the opcode, ModRM, then as ModRM says SIB and a displacement

// The general registers as instructions number them.
constexpr int kGeneral[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

// The bytes of VEX that extend register numbers, as 0 or 8: they are stored inverted.
struct Extension {
  int reg, index, base;
  explicit Extension(uint8_t vex) : reg(~vex >> 4 & 8), index(~vex >> 3 & 8), base(~vex >> 2 & 8) {}
};

int64_t displacement(const uint8_t* at, int size) {
  int32_t wide = 0;
  std::memcpy(&wide, at, size);
  return size == 1 ? int8_t(wide) : wide;
}

// Reads an operand in memory from its ModRM byte on; returns where the instruction ends.
const uint8_t* decode_memory(const uint8_t* at, Extension by, const greg_t* general, Instruction& one) {
  const int mod = *at >> 6, rm = *at++ & 7;
  int base = rm;
  one.sib = rm == 4;
  one.stride = 0;
  if (one.sib) {
    const int scale = *at >> 6, index = (*at >> 3 & 7) | by.index;
    base = *at++ & 7;
    if (index != 4) one.stride = uint64_t(general[kGeneral[index]]) << scale;
  }
  const bool no_base = mod == 0 && base == 5;
  const int size = mod == 1 ? 1 : mod == 2 || no_base ? 4 : 0;
  one.address = displacement(at, size);
  at += size;
  if (!no_base)
    one.address += general[kGeneral[base | by.base]];
  else if (!one.sib)
    one.address += uint64_t(at);  // relative to the next instruction
  if (one.opcode->byte == 0x49) one.address += one.stride;  // an index like any other, not a stride
  return at;
}

const Opcode* find_opcode(uint8_t byte, uint8_t prefix, bool memory) {
  for (const Opcode& opcode : kOpcodes)
    if (opcode.byte == byte && opcode.prefix == prefix && opcode.memory == memory) return &opcode;
  return nullptr;
}

// Whether an operand that an opcode has no use for is as it must be.
bool unused_are_unset(const Instruction& one, uint8_t modrm) {
  const bool is_product = one.opcode->byte >= 0x5c;
  if (!is_product && one.vvvv) return false;
  if (one.opcode->byte != 0x49) return true;
  return one.opcode->run == tilezero ? (modrm & 7) == 0 : (modrm & (one.opcode->memory ? 0x38 : 0x3f)) == 0;
}

// False for what is no instruction of AMX.
bool decode(const greg_t* general, Instruction& one) {
  const uint8_t* const begin = (const uint8_t*)general[REG_RIP];
  if (begin[0] != 0xc4 || (begin[1] & 31) != 2 || begin[2] & 0x84) return false;  // map 0F38, W0, 128 bits
  const Extension by(begin[1]);
  const uint8_t modrm = begin[4];
  one.opcode = find_opcode(begin[3], begin[2] & 3, modrm < 0xc0);
  if (!one.opcode) return false;
  one.reg = (modrm >> 3 & 7) | by.reg;
  one.rm = (modrm & 7) | by.base;
  one.vvvv = ~begin[2] >> 3 & 15;
  if (!unused_are_unset(one, modrm)) return false;
  const uint8_t* end = begin + 5;
  if (one.opcode->memory) end = decode_memory(begin + 4, by, general, one);
  one.length = end - begin;
  return true;
}

}  // namespace
