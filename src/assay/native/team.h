// Threads that work on one thing together.

#pragma once

#include <atomic>
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace assay {
namespace {

// Where threads wait for each other. OpenMP's own barrier spins; where another program has taken a
// processor, or two of our threads share one, that costs a time slice at each of a hundred barriers.
class Barrier {
 public:
  void wait(int size) {
    const int phase = phase_.load();
    if (arrived_.fetch_add(1) + 1 == size) {
      arrived_.store(0);
      phase_.store(phase + 1);
      return;
    }
    for (int spins = 0; phase_.load() == phase; ++spins)
      if (spins > 2000) std::this_thread::yield();
  }

 private:
  std::atomic<int> arrived_{0}, phase_{0};
};

struct Team {  // this thread and how many there are
  int index, size;
  Barrier* barrier;
  void wait() const {
    if (size > 1) barrier->wait(size);
  }
};

// Runs f(team) on so many threads.
template <typename F>
void together(int n_threads, F f) {
  Barrier barrier;
#ifdef _OPENMP
#pragma omp parallel num_threads(n_threads)
  f(Team{omp_get_thread_num(), omp_get_num_threads(), &barrier});
#else
  f(Team{0, 1, &barrier});
#endif
}

// This thread's share of `count` things that go in units.
inline void span(int count, int unit, Team team, int& first, int& last) {
  const int share = ((count + team.size - 1) / team.size + unit - 1) / unit;
  first = team.index * share * unit;
  last = first + share * unit;
  if (first > count) first = count;
  if (last > count) last = count;
}

}  // namespace
}  // namespace assay
