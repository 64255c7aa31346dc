// Each instruction of AMX beside a plain loop, for test_amx_emulator.py. With no argument it prints what is
// wrong, then how many checks there were; with one it does what a processor refuses.

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "amx_forms.h"
#include "amx_products.h"
#include "amx_refused.h"
#include "amx_tiles.h"

namespace {

// --- configurations

Config stored() {
  Config config;
  asm volatile("sttilecfg %0" : "=m"(config.bytes));
  return config;
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

void check_rows(const char* form, const uint8_t* from, int64_t stride) {
  Data found;
  store<0>(found, 64);
  for (int row = 0; row < 16; ++row)
    check(!std::memcmp(found[row], from + row * stride, 64), "%s, row %d", form, row);
}

void forms_without_base_or_index() {
  constexpr int64_t kPlace = 0x20000000;  // a displacement alone reaches it
  auto* low = (uint8_t*)mmap((void*)kPlace, 4096, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (low == MAP_FAILED) return check(false, "no memory at %#lx", long(kPlace));
  fill(low, 4096, 3);
  asm volatile("tileloadd 0x20000000(,%0,2), %%tmm0" : : "r"(int64_t(96)) : "memory");
  check_rows("no base", low, 192);
  asm volatile("tileloadd 64(%0), %%tmm0" : : "r"(low) : "memory");
  check_rows("no index", low + 64, 0);
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm0" : : "r"(low), "r"(int64_t(100)) : "memory");
  check_rows("tileloaddt1", low, 100);
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
      const int size = rows * row_bytes;
      check(!std::memcmp(page, page + 4096 - size, size), "%d rows of %d", rows, row_bytes);
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
  const long kind = MAP_PRIVATE | MAP_ANONYMOUS;
  void* page = (void*)syscall(SYS_mmap, nullptr, 4096L, long(PROT_READ), kind, -1L, 0L);
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

}  // namespace

int main(int count, char** names) {
  if (count == 1) {
    everything();
    std::printf("%d\n", checks);
  }
  for (const Refused& one : kRefused)
    if (count > 1 && !std::strcmp(one.name, names[1])) one.run();
}
