// Threads of our own, for compilers whose OpenMP is not the one that PyTorch brings: Clang's, so that of
// macOS.

#pragma once

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

namespace assay {
namespace {

class Crew {
 public:
  // Each thread that asks has its own, which ends with it; a process that was forked has none of its
  // parent's threads.
  static Crew& mine() {
    thread_local Crew crew;
    if (crew.process_ != getpid()) crew = Crew();
    return crew;
  }

  Crew() = default;
  Crew& operator=(Crew&&) = default;
  ~Crew() {
    if (!board_ || process_ != getpid()) return;
    const std::lock_guard lock(board_->changing);
    board_->over = true;
    board_->begun.notify_all();
  }

  // f(index, size) by this thread and others, `wanted` in all or as many as the system lets us have.
  void run(int wanted, const std::function<void(int, int)>& f) {
    const int size = std::min(wanted, 1 + hire(wanted - 1));
    if (size == 1) return f(0, 1);
    {
      const std::lock_guard lock(board_->changing);
      board_->task = &f;
      board_->size = size;
      board_->working = size - 1;
      ++board_->round;
    }
    board_->begun.notify_all();
    f(0, size);
    std::unique_lock lock(board_->changing);
    board_->ended.wait(lock, [this] { return board_->working == 0; });
  }

 private:
  struct Board {  // what the threads of a crew read
    std::mutex changing;
    std::condition_variable begun, ended;
    const std::function<void(int, int)>* task = nullptr;
    int size = 0, round = 0, working = 0;
    bool over = false;
  };

  // Returns how many there are beside this thread.
  int hire(int wanted) {
    if (wanted > 0 && !board_) board_ = std::make_shared<Board>();
    try {
      for (; hired_ < wanted; ++hired_)
        std::thread(work, board_, hired_ + 1, board_->round).detach();
    } catch (const std::system_error&) {  // no more of them
    }
    return hired_;
  }

  static void work(std::shared_ptr<Board> board, int index, int round) {
    std::unique_lock lock(board->changing);
    for (;;) {
      board->begun.wait(lock, [&] { return board->over || board->round != round; });
      if (board->over) return;
      round = board->round;
      if (index >= board->size) continue;
      const int size = board->size;
      lock.unlock();
      (*board->task)(index, size);
      lock.lock();
      if (--board->working == 0) board->ended.notify_one();
    }
  }

  std::shared_ptr<Board> board_;
  int hired_ = 0;
  pid_t process_ = getpid();
};

}  // namespace
}  // namespace assay
