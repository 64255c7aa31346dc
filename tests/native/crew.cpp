// Threads of a crew: each of a run is there once, whatever was run before, whoever runs. Prints what is
// wrong; compiled without OpenMP.

#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "team.h"

namespace {

// Every thread of `size` adds its part twice over, between meetings; what another has not added yet is
// seen.
bool right(int size, int round) {
  std::vector<int> parts(size);
  std::atomic<int> wrong{0};
  assay::together(size, [&](assay::Team team) {
    if (team.size != size) ++wrong;
    for (int turn = 1; turn <= 2; ++turn) {
      parts[team.index] += round + team.index;
      team.wait();
      for (int i = 0; i < team.size; ++i) wrong += parts[i] != turn * (round + i);
      team.wait();
    }
  });
  return wrong == 0;
}

#ifdef __SANITIZE_THREAD__
constexpr int kRounds = 10;  // which take longer under it
#else
constexpr int kRounds = 40;
#endif

int all(const char* who) {
  for (int round = 0; round < kRounds; ++round)
    for (int size : {1, 3, 2, 4})
      if (!right(size, round)) return std::printf("%s: %d threads, round %d\n", who, size, round);
  return 0;
}

#ifdef __linux__
int threads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

// Those of this thread alone are left, in a while.
bool others_ended(int own) {
  for (int tries = 0; tries < 500 && threads() > own; ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return threads() == own;
}
#else
bool others_ended(int) { return true; }
#endif

template <typename F>
void apart(const char* who, F f) {
  std::fflush(stdout);
  if (const pid_t child = fork(); child == 0) {
    alarm(60);
    std::exit(f());
  } else {
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) std::printf("%s ended with status %d\n", who, status);
  }
}

}  // namespace

int main() {
#ifndef __SANITIZE_THREAD__  // it needs room itself, has a thread, and follows no threads of a forked process
  // First of all: later there are stacks of threads that ended, which are taken again.
  apart("a process with room for no thread", [] {
    const rlimit none{1 << 20, 1 << 20};
    setrlimit(RLIMIT_AS, &none);
    int size = 0;
    assay::together(3, [&](assay::Team team) { size = team.size; });
    return size != 1;
  });
#endif
  all("the first thread");
  for (int i = 0; i < 3; ++i) {  // threads that end, and others at the same time
    std::thread one([] { all("a thread"); }), another([] { all("another"); });
    all("the first thread beside two");
    one.join();
    another.join();
  }
#ifndef __SANITIZE_THREAD__
  if (!others_ended(4)) std::printf("threads are left of callers that ended\n");
  apart("a forked process", [] { return all("a forked process"); });
#endif
}
