// Each instruction of AMX beside a plain loop, for test_amx_emulator.py. With no argument it prints what is
// wrong, then how many checks there were; with one it does what a processor refuses.

#include <immintrin.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

// --- a load and a store for each pair of base and index, by the assembler's encoding

struct Form {
  void (*run)(const void* base, int64_t index);  // tile 3 from or to displacement(base, index, scale)
  int64_t displacement, scale;
  const char* name;
};
#pragma GCC visibility push(hidden)
extern "C" {
extern const Form loads_begin[], loads_end[], stores_begin[], stores_end[];
int64_t form_base, form_index, form_stack;
}
#pragma GCC visibility pop

// Registers that a function must keep go to the stack, the pointer to the stack to memory.
asm(R"asm(
.macro FORM displacement, base, index, scale, load
.text
1:
  push %rbx
  push %rbp
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rdi, form_base(%rip)
  mov %rsi, form_index(%rip)
  mov %rsp, form_stack(%rip)
  mov form_base(%rip), %\base
  mov form_index(%rip), %\index
  .if \load
  tileloadd \displacement(%\base,%\index,\scale), %tmm3
  .else
  tilestored %tmm3, \displacement(%\base,%\index,\scale)
  .endif
  mov form_stack(%rip), %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbp
  pop %rbx
  ret
2: .asciz "\displacement(\base,\index,\scale)"
.section .data.rel, "aw"
  .quad 1b, \displacement, \scale, 2b
.text
.endm

.macro FORMS load
.irp base, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15
.irp index, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
.ifnc \base, \index
  FORM 0, \base, \index, 1, \load
  FORM 0x40, \base, \index, 2, \load
  FORM -0x80, \base, \index, 4, \load
  FORM 0x12340, \base, \index, 8, \load
.endif
.endr
.endr
.endm

.section .data.rel, "aw"
loads_begin:
.text
  FORMS 1
.section .data.rel, "aw"
loads_end:
stores_begin:
.text
  FORMS 0
.section .data.rel, "aw"
stores_end:
.text
)asm");

namespace {

typedef uint8_t Data[16][64];

int checks = 0;

template <typename... Arguments>
void check(bool right, const char* what, Arguments... arguments) {
  ++checks;
  if (right) return;
  std::printf(what, arguments...);
  std::printf("\n");
}

// --- instructions, with what they read and write told to the compiler

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

// --- configurations

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

Config stored() {
  Config config;
  asm volatile("sttilecfg %0" : "=m"(config.bytes));
  return config;
}

void fill(void* to, size_t count, unsigned seed) {
  std::mt19937 next(seed);
  for (size_t i = 0; i < count; ++i) static_cast<uint8_t*>(to)[i] = next();
}

void configurations_are_stored_as_loaded() {
  const Config none{{0}}, some = Config().tile(0, 3, 8).tile(7, 16, 64);
  check(!std::memcmp(&none, stored().bytes, 64), "a configuration was there at the beginning");
  some.load();
  check(!std::memcmp(&some, stored().bytes, 64), "sttilecfg differs from ldtilecfg");
  none.load();
  check(!std::memcmp(&none, stored().bytes, 64), "palette 0 left a configuration");
  some.load();
  release();
  check(!std::memcmp(&none, stored().bytes, 64), "tilerelease left a configuration");
}

void configurations_are_found_by_every_address() {
  alignas(64) static Config places[4];
  Config *base = places, found;
  places[3] = Config().tile(1, 5, 12);
  asm volatile("ldtilecfg 64(%0,%1,8)" : : "r"(base), "r"(int64_t(16)), "m"(places));
  check(!std::memcmp(&places[3], stored().bytes, 64), "ldtilecfg by base and index");
  asm volatile("sttilecfg -64(%0)" : : "r"(places + 1) : "memory");
  check(!std::memcmp(&places[3], &places[0], 64), "sttilecfg by a displacement");
  Config().tile(2, 7, 4).load();
  asm volatile("ldtilecfg form_config(%%rip)\n\tsttilecfg %0\n\t"
               ".pushsection .data\n\t.balign 64\nform_config: .byte 1\n\t.zero 15\n\t.word 20\n\t"
               ".zero 30\n\t.byte 9\n\t.zero 15\n\t.popsection"
               : "=m"(found.bytes));
  const Config meant = Config().tile(0, 9, 20);
  check(!std::memcmp(&meant, &found, 64), "ldtilecfg relative to the next instruction");
}

// --- loads and stores

// Rows of 64 bytes, `stride` bytes apart, with room before them in both directions: also below them for
// the signal's frame where they are taken for the stack.
struct Memory {
  std::vector<uint8_t> bytes = std::vector<uint8_t>(1 << 19);
  uint8_t* middle = bytes.data() + (1 << 18);
};

void forms_of_loads() {
  Memory memory;
  fill(memory.middle - 4096, 8192, 1);
  for (const Form* form = loads_begin; form != loads_end; ++form)
    for (int64_t stride : {-64, 0, 128}) {
      Data found;
      form->run(memory.middle - form->displacement, stride / form->scale);
      store<3>(found, 64);
      bool right = true;
      for (int row = 0; row < 16; ++row)
        right &= !std::memcmp(found[row], memory.middle + row * stride, 64);
      check(right, "tileloadd %s, stride %ld", form->name, long(stride));
    }
}

void forms_of_stores() {
  Memory memory;
  Data data;
  fill(data, sizeof data, 2);
  load<3>(data, 64);
  for (const Form* form = stores_begin; form != stores_end; ++form)
    for (int64_t stride : {-64, 128}) {
      std::memset(memory.middle - 4096, 0, 8192);
      form->run(memory.middle - form->displacement, stride / form->scale);
      bool right = true;
      for (int row = 0; row < 16; ++row)
        right &= !std::memcmp(data[row], memory.middle + row * stride, 64);
      check(right, "tilestored %s, stride %ld", form->name, long(stride));
    }
}

void forms_without_base_or_index() {
  constexpr int64_t kPlace = 0x20000000;  // a displacement alone reaches it
  auto* low = (uint8_t*)mmap((void*)kPlace, 4096, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (low == MAP_FAILED) return check(false, "no memory at %#lx", long(kPlace));
  fill(low, 4096, 3);
  Data found;
  asm volatile("tileloadd 0x20000000(,%0,2), %%tmm0" : : "r"(int64_t(96)) : "memory");
  store<0>(found, 64);
  for (int row = 0; row < 16; ++row) check(!std::memcmp(found[row], low + row * 192, 64), "no base, row %d", row);
  asm volatile("tileloadd 64(%0), %%tmm0" : : "r"(low) : "memory");
  store<0>(found, 64);
  for (int row = 0; row < 16; ++row) check(!std::memcmp(found[row], low + 64, 64), "no index, row %d", row);
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm0" : : "r"(low), "r"(int64_t(100)) : "memory");
  store<0>(found, 64);
  for (int row = 0; row < 16; ++row) check(!std::memcmp(found[row], low + row * 100, 64), "tileloaddt1, row %d", row);
  munmap(low, 4096);
}

// What lies beyond a tile's rows and columns is neither read nor written: it may be beyond a page.
void small_tiles_keep_to_their_shape() {
  auto* page = (uint8_t*)mmap(nullptr, 12288, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 4096;
  mprotect(page, 4096, PROT_READ | PROT_WRITE);
  for (int rows = 1; rows <= 16; ++rows)
    for (int row_bytes = 4; row_bytes <= 64; row_bytes += 4) {
      fill(page, 4096, rows * row_bytes);
      Config().tile(5, rows, row_bytes).load();
      load<5>(page + 4096 - 3 * rows * row_bytes, 3 * row_bytes);
      load<5>(page + 4096 - rows * row_bytes, row_bytes);
      store<5>(page, row_bytes);
      check(!std::memcmp(page, page + 4096 - rows * row_bytes, rows * row_bytes), "%d rows of %d", rows, row_bytes);
      Data wide, before;
      fill(wide, sizeof wide, 4);
      std::memcpy(before, wide, sizeof wide);
      store<5>(wide, 64);
      for (int row = 0; row < rows; ++row) std::memcpy(before[row], page + row * row_bytes, row_bytes);
      check(!std::memcmp(wide, before, sizeof wide), "%d rows of %d are stored beyond them", rows, row_bytes);
    }
  munmap(page - 4096, 12288);
}

template <int Tile>
void one_of_eight(Data& data) {
  Data found;
  fill(data, sizeof data, 10 + Tile);
  load<Tile>(data, 64);
  if (Tile % 2) {
    zero<Tile>();
    std::memset(data, 0, sizeof data);
  }
  store<Tile>(found, 64);
  check(!std::memcmp(found, data, sizeof data), "tile %d", Tile);
}

void tiles_are_eight() {
  Data data[8], found;
  one_of_eight<0>(data[0]);
  one_of_eight<1>(data[1]);
  one_of_eight<2>(data[2]);
  one_of_eight<3>(data[3]);
  one_of_eight<4>(data[4]);
  one_of_eight<5>(data[5]);
  one_of_eight<6>(data[6]);
  one_of_eight<7>(data[7]);
  store<0>(found, 64);
  check(!std::memcmp(found, data[0], sizeof found), "tile 0 was overwritten");
  store<6>(found, 64);
  check(!std::memcmp(found, data[6], sizeof found), "tile 6 was overwritten");
}

void a_first_row_goes_on_where_it_was() {
  Data data, found;
  fill(data, sizeof data, 5);
  Config later = whole();
  later.bytes[1] = 10;
  later.load();
  load<1>(data, 64);
  store<1>(found, 64);
  check(stored().bytes[1] == 0, "the first row is still set");
  for (int row = 0; row < 16; ++row) {
    bool zero = true;
    for (uint8_t byte : found[row]) zero &= byte == 0;
    check(row < 10 ? zero : !std::memcmp(found[row], data[row], 64), "first row 10, row %d", row);
  }
}

// --- products

struct Shape {
  int m, n, k;
};
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
    for (int i = 0; i < 2; ++i)
      halves[i] = flushed(std::fma(widened(a + 4 * k + 2 * i), widened(b[k] + 4 * column + 2 * i), halves[i]));
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

// --- beside other threads and other handlers

void threads_have_tiles_of_their_own() {
  pthread_barrier_t together;
  pthread_barrier_init(&together, nullptr, 2);
  bool right[2];
  const auto run = [&](int index) {
    Data data, found = {};
    fill(data, sizeof data, 20 + index);
    Config().tile(0, 8 + index, 64).load();
    load<0>(data, 64);
    pthread_barrier_wait(&together);
    pthread_barrier_wait(&together);
    store<0>(found, 64);
    right[index] = stored().bytes[48] == 8 + index && !std::memcmp(found, data, 64 * (8 + index));
  };
  std::thread other(run, 1);
  run(0);
  other.join();
  check(right[0], "the first thread's tiles");
  check(right[1], "the second thread's tiles");
}

int handled = 0;

void skip_two_bytes(int, siginfo_t*, void* context) {
  ++handled;
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += 2;
}

void count(int) { ++handled; }

void other_handlers_have_their_signals() {
  struct sigaction skipping {}, before {}, found {};
  skipping.sa_sigaction = skip_two_bytes;
  skipping.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &skipping, &before);
  whole().load();
  check(handled == 0, "a tile instruction went to another handler");
  asm volatile("ud2");
  check(handled == 1, "ud2 was not handled");
  sigaction(SIGILL, nullptr, &found);
  check(found.sa_sigaction == skip_two_bytes, "the handler is not told");
  check((void*)signal(SIGILL, count) == (void*)skip_two_bytes, "signal returns another handler");
  raise(SIGILL);
  check(handled == 2, "a signal that was sent was not handled");
  signal(SIGILL, SIG_IGN);
  raise(SIGILL);
  whole().load();
  sigaction(SIGILL, &before, &found);
  check(found.sa_handler == SIG_IGN, "it was not ignored");
  release();
}

void system_calls_are_as_ever() {
  check(syscall(SYS_arch_prctl, 0x1023, 18) == 0, "no permission for tiles");
  check(syscall(SYS_getpid) == getpid(), "getpid");
  check(syscall(SYS_close, -1) == -1 && errno == EBADF, "close");
  void* page = (void*)syscall(SYS_mmap, nullptr, 4096L, long(PROT_READ), long(MAP_PRIVATE | MAP_ANONYMOUS), -1L, 0L);
  check(page != MAP_FAILED && munmap(page, 4096) == 0, "mmap, of six arguments");
}

void everything() {
  configurations_are_stored_as_loaded();
  configurations_are_found_by_every_address();
  whole().load();
  forms_of_loads();
  forms_of_stores();
  forms_without_base_or_index();
  tiles_are_eight();
  small_tiles_keep_to_their_shape();
  a_first_row_goes_on_where_it_was();
  all_products();
  threads_have_tiles_of_their_own();
  other_handlers_have_their_signals();
  system_calls_are_as_ever();
}

// --- what a processor refuses

void load_with(int at, uint8_t byte) {
  Config config = whole();
  config.bytes[at] = byte;
  config.load();
}

void load_from(const void* at) { load<0>(at, 64); }

// The numbers of tiles and shapes that a product may not have.
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
    {"no configuration", [] { load_from(kShapes); }},
    {"released", [] { whole().load(); release(); zero<0>(); }},
    {"stored", [] { Data data; store<1>(data, 64); }},
    {"multiplied", [] { _tile_dpbssd(0, 1, 2); }},
    {"thread", [] { whole().load(); std::thread([] { zero<0>(); }).join(); }},
    {"no tile", [] { Config().tile(1, 16, 64).load(); zero<0>(); }},
    {"odd bytes", [] { Config().tile(0, 16, 62).load(); zero<0>(); }},
    {"first row", [] { load_with(1, 16); load_from(kShapes); }},
    {"tile 8", [] { whole().load(); asm volatile(".byte 0xc4, 0x62, 0x7b, 0x49, 0xc0"); }},
    {"no stride", [] { whole().load(); asm volatile(".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x00" : : "a"(kShapes)); }},
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

int main(int count, char** names) {
  if (count == 1) {
    everything();
    std::printf("%d\n", checks);
  }
  for (const Refused& one : kRefused)
    if (count > 1 && !std::strcmp(one.name, names[1])) one.run();
}
