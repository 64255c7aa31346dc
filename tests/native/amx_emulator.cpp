// Executes AMX's tile instructions on x86-64 Linux machines with AVX-512 whose processors lack them, so
// that the compiled library with tiles can be tested there. To be loaded by LD_PRELOAD.
//
// A processor without AMX answers a tile instruction by SIGILL. The handler installed here executes it and
// goes on after it. What a processor with AMX would refuse is one sentence on stderr and the signal that
// Linux sends for it. Any other SIGILL goes to whoever asked for it. Where the processor has AMX nothing is
// done at all: tests then try the processor. A thread that blocks SIGILL dies of its first tile instruction.

#include "amx_processor.h"

#include <cpuid.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace {

// --- signals

std::atomic<int64_t> executed{0};
struct sigaction theirs;  // what the program asked for at SIGILL; at first the default
int original_stderr = STDERR_FILENO;  // tests may lead it elsewhere

// Whether the processor has all of it and the system saves its config.
bool processor_has_tiles() {
  unsigned a, b, c, d = 0, low, high;
  constexpr unsigned kWanted = 1u << 22 | 1u << 24 | 1u << 25, kSaved = 3u << 17;  // bf16, tiles, int8
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & kWanted) != kWanted) return false;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & kSaved) == kSaved;
}

bool emulating() {
  static const bool found = !processor_has_tiles();
  return found;
}

template <typename F>
F next(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

int system_sigaction(int number, const struct sigaction* action, struct sigaction* before) {
  static const auto of_system = next<decltype(&sigaction)>("sigaction");
  return of_system(number, action, before);
}

void set_default(int number) {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  system_sigaction(number, &action, nullptr);
}

// Does what the program asked for. After it an instruction that is still there is met again, as ever.
void forward(int number, siginfo_t* info, void* context) {
  const struct sigaction action = theirs;
  const bool sent = info->si_code <= 0;  // by a process, not by an instruction
  if (action.sa_flags & SA_RESETHAND) theirs = {};
  if (action.sa_handler == SIG_IGN && sent) return;
  if (action.sa_handler == SIG_IGN || action.sa_handler == SIG_DFL) {
    set_default(number);
    if (sent) raise(number);  // as soon as this handler returns
  } else if (action.sa_flags & SA_SIGINFO) {
    action.sa_sigaction(number, info, context);
  } else {
    action.sa_handler(number);
  }
}

void tell(const Instruction& one, uint64_t at, const char* why) {
  Dl_info where{};
  const bool known = dladdr((void*)at, &where) && where.dli_fname;
  char line[512];
  const int length = std::snprintf(line, sizeof line, "AMX emulator: %s at %#lx (%s+%#lx): %s\n",
                                   one.opcode->name, (unsigned long)at, known ? where.dli_fname : "?",
                                   (unsigned long)(at - (known ? uint64_t(where.dli_fbase) : 0)), why);
  const int written = length < int(sizeof line) ? length : int(sizeof line) - 1;
  if (write(original_stderr, line, written) < 0) return;
}

void on_sigill(int number, siginfo_t* info, void* context) {
  greg_t* general = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Instruction one{};
  if (info->si_code <= 0 || !decode(general, one)) return forward(number, info, context);
  const Fault fault = one.opcode->run(one);
  if (!fault.why) {
    general[REG_RIP] += one.length;
    executed.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  tell(one, general[REG_RIP], fault.why);
  if (fault.signal == number) return forward(number, info, context);
  raise(fault.signal);  // to whoever asked for it, such as Python's faulthandler
  set_default(fault.signal);
  raise(fault.signal);
}

__attribute__((constructor)) void begin() {
  if (!emulating()) return;
  if (const int copy = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100); copy >= 0) original_stderr = copy;
  struct sigaction ours {}, before {};
  ours.sa_sigaction = on_sigill;
  ours.sa_flags = SA_SIGINFO | SA_RESTART;
  system_sigaction(SIGILL, &ours, &before);
  if (theirs.sa_handler == SIG_DFL) theirs = before;
}

// Adds a line to the file that AMX_EMULATOR_COUNTS names, if it names one.
__attribute__((destructor)) void end() {
  const char* path = std::getenv("AMX_EMULATOR_COUNTS");
  if (!path || !emulating()) return;
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file < 0) return;
  dprintf(file, "%lld\n", (long long)executed.load());
  close(file);
}

}  // namespace

// --- what programs call

extern "C" {

// How many tile instructions this process has executed by emulation; -1 where the processor does it.
int64_t amx_emulator_executed() { return emulating() ? executed.load() : -1; }

int sigaction(int number, const struct sigaction* action, struct sigaction* before) noexcept {
  if (number != SIGILL || !emulating()) return system_sigaction(number, action, before);
  const struct sigaction asked = action ? *action : theirs;
  if (before) *before = theirs;
  theirs = asked;
  return 0;
}

sighandler_t signal(int number, sighandler_t handler) noexcept {
  static const auto of_system = next<decltype(&signal)>("signal");
  if (number != SIGILL || !emulating()) return of_system(number, handler);
  struct sigaction action {}, before {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(number, &action, &before);
  return before.sa_handler;
}

// The system is asked by way of this for the large registers (ARCH_REQ_XCOMP_PERM, XTILEDATA). It takes
// six arguments, however many there are, as the kernel does.
long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long six[6];
  for (long& argument : six) argument = va_arg(list, long);
  va_end(list);
  if (number == SYS_arch_prctl && six[0] == 0x1023 && six[1] == 18 && emulating()) return 0;
  register long r10 asm("r10") = six[3], r8 asm("r8") = six[4], r9 asm("r9") = six[5];
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(six[0]), "S"(six[1]), "d"(six[2]), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  if (result < 0 && result >= -4095) {
    errno = int(-result);
    return -1;
  }
  return result;
}
}
