// Threads that work on one thing together.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <thread>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#else
#include "crew.h"
#endif

namespace assay {
namespace {

// Where threads wait for each other. OpenMP's own barrier spins; where another program has taken a
// core, or two of our threads share one, that costs a time slice at each of a hundred barriers. To give
// the core away at once would cost as much beside another program; so a thread spins for some time.
class Meeting {
 public:
  explicit Meeting(int most) : taken_(most) {}

  void wait(int size) {
    const int phase = phase_.load();
    if (arrived_.fetch_add(1) + 1 == size) {
      arrived_.store(0);
      for (Counter& taken : taken_) taken.value.store(0);
      phase_.store(phase + 1);
      return;
    }
    for (int spins = 0; phase_.load() == phase; ++spins) {
      if (abandoned_.load(std::memory_order_relaxed)) throw Abandoned();
      if (spins > kSpins) std::this_thread::yield();
    }
  }

  // Of a thread that will not come: whoever waits for it, now or later, gets an exception in its place.
  struct Abandoned {};
  void abandon() { abandoned_.store(true); }

  // Takes one of a thread's things; returns how many were taken before, since the last wait.
  int take(int thread) { return taken_[thread].value.fetch_add(1); }

 private:
  static constexpr int kSpins = 60000;  // about 30 microseconds
  struct alignas(64) Counter {
    std::atomic<int> value{0};
  };
  std::atomic<int> arrived_{0}, phase_{0};
  std::atomic<bool> abandoned_{false};
  std::vector<Counter> taken_;
};

struct Team {  // this thread and how many there are
  int index, size;
  Meeting* meeting;

  void wait() const {
    if (size > 1) meeting->wait(size);
  }

  // f(i) for all i below `count`; returns when all are done. Each thread has a share, always the same
  // of as many, which its cache remembers, and then takes what others have not begun: one whose core is
  // slow or busy does less.
  template <typename F>
  void share(int count, F f) const {
    if (size == 1) {
      for (int i = 0; i < count; ++i) f(i);
      return;
    }
    for (int k = 0; k < size; ++k) {
      const int of = (index + k) % size, first = share_of(count, of), last = share_of(count, of + 1);
      for (int i; (i = first + meeting->take(of)) < last;) f(i);
    }
    wait();
  }

 private:
  int share_of(int count, int thread) const { return int64_t(count) * thread / size; }
};

// Things cut in pieces, to be shared.
struct Piece {
  int thing;
  int64_t first;
  int count;
};

inline void cut(int thing, int64_t count, int size, std::vector<Piece>& to) {
  for (int64_t first = 0; first < count; first += size)
    to.push_back({thing, first, int(std::min<int64_t>(size, count - first))});
}

// Runs f(team) on so many threads. What one of them throws ends the others at their next wait and is thrown here:
// an exception that left a parallel region would end the process.
template <typename F>
void together(int n_threads, F f) {
  Meeting meeting(n_threads);
  std::exception_ptr thrown;
  std::atomic_flag is_first = ATOMIC_FLAG_INIT;
  const auto work = [&](int index, int size) noexcept {
    try {
      f(Team{index, size, &meeting});
    } catch (const Meeting::Abandoned&) {
    } catch (...) {
      if (!is_first.test_and_set()) thrown = std::current_exception();
      meeting.abandon();
    }
  };
#ifdef _OPENMP
#pragma omp parallel num_threads(n_threads)
  work(omp_get_thread_num(), omp_get_num_threads());
#else
  Crew::mine().run(n_threads, work);
#endif
  if (thrown) std::rethrow_exception(thrown);
}

// What every function of the C interface returns; native/abi.py makes an exception of Python's of it.
enum Status : int32_t { kDone, kNoMemory, kFailed };

// Runs f(); no exception leaves C++.
template <typename F>
Status guarded(F f) noexcept {
  try {
    f();
    return kDone;
  } catch (const std::bad_alloc&) {
    return kNoMemory;
  } catch (...) {
    return kFailed;
  }
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
