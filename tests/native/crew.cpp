// Threads of a crew: each of a run is there once, whatever was run before, whoever runs. Prints what is
// wrong; compiled without OpenMP.

#include <sys/wait.h>

#include <atomic>
#include <cstdio>
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

int all(const char* who) {
  for (int round = 0; round < 40; ++round)
    for (int size : {1, 3, 2, 4})
      if (!right(size, round)) return std::printf("%s: %d threads, round %d\n", who, size, round);
  return 0;
}

}  // namespace

int main() {
  all("the first thread");
  for (int i = 0; i < 3; ++i) {  // threads that end, and others at the same time
    std::thread one([] { all("a thread"); }), another([] { all("another"); });
    all("the first thread beside two");
    one.join();
    another.join();
  }
  std::fflush(stdout);
  if (const pid_t child = fork(); child == 0) {
    alarm(60);
    return all("a forked process") != 0;
  } else {
    int status = 0;
    waitpid(child, &status, 0);
    if (status != 0) std::printf("the forked process ended with status %d\n", status);
  }
}
