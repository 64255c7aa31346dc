// What both directions of a training pass work with: a model, a job, the memory, and blocks of tokens.

#pragma once

#include "training_memory.h"

namespace assay {
namespace {

template <typename T>
class Work {
 public:
  Work(const TrainedModel& model, int n_threads) : m_(model), held_(m_, n_threads) {
    int rows = 0;
    for (int place = 0; place < kPlaces; ++place) rows += linear_at(m_.layers[0], place).n_out;
    for (int place = 0; place < kPlaces; ++place)
      cut(place, linear_at(m_.layers[0], place).n_out, tall(rows, n_threads), of_layer_);
    cut(0, m_.head.n_out, tall(m_.head.n_out, n_threads), of_head_);
  }

  // For one thread, before any other begins.
  void take(const TrainedModel& model, TrainingJob& job) {
    m_ = model;
    job_ = &job;
  }

 protected:
  struct Part {  // a block of tokens, and the memory of the thread that has it
    int first, count, index;
    Own<T>& own;
  };

  // The rows of a piece of weights: few enough for threads to share out what so many come to, and so
  // many that a product goes through its other operand only a few times.
  static int tall(int rows, int n_threads) {
    return std::clamp(rows / (8 * n_threads) / 64 * 64, 64, 256);
  }

  bool before() const { return m_.block == kPre || m_.block == kParallel; }
  bool adds() const { return m_.block != kPlain; }
  Held<T>& layer(int l) { return held_.layers[l]; }
  Panels<T>& panels(int l, int place) { return held_.panels[l * kPlaces + place]; }
  Rows<float>& in_of(int l) { return l < m_.n_layers ? layer(l).in : held_.last; }

  // The stream as the MLP's residual finds it.
  Rows<float>& middle_of(int l) {
    return !m_.n_heads ? layer(l).in : before() ? layer(l).summed : layer(l).middle;
  }

  // f(part) for all blocks of the tokens from `first` on.
  template <typename F>
  void blocks(Team team, F f, int first = 0, int64_t count = INT32_MAX) {
    const int end = std::min<int64_t>(held_.n, first + count), size = held_.block;
    team.share((end - first + size - 1) / size, [&](int b) {
      const int at = first + b * size;
      f(Part{at, std::min(size, end - at), at / size, *held_.own[team.index]});
    });
  }

  int token_at(int i, int ahead) const {
    return job_->tokens[i / m_.seq_len * (m_.seq_len + 1) + i % m_.seq_len + ahead];
  }

  // c = x W^T + bias for the rows of a block, upon `seed` if there is one.
  void through(const TrainedLinear& w, const Panels<T>& panels, const T* x, int64_t x_stride, int count,
               float* c, int64_t stride, const float* seed = nullptr) {
    multiply(Left<T>::rows(x, x_stride), count, panels.forward.data(), panel_size<T>(w.n_in), w.n_out,
             w.n_in, c, stride, seed);
    if (w.bias)
      for (int i = 0; i < count; ++i) add_row(c + i * stride, w.bias, w.n_out);
  }

  void keep_panels(Rows<T>& rows, int from, const Part& part, int width, Row<T>& to) {
    pack_rows(rows.at(from), rows.stride, part.first, part.count, width, to.data(), panel_size<T>(held_.n));
  }

  void turn_head(float* head, int token, bool back) {
    const int64_t at = int64_t(token % m_.seq_len) * m_.n_pairs;
    if (m_.n_pairs) turn(head, m_.cos + at, m_.sin + at, m_.n_pairs, back);
  }

  // Places that drop: 0 what is embedded, then of each layer what leaves mixer and MLP, and weights.
  Dropout dropout_at(int place) const { return {job_->seed, place, job_->dropout}; }
  Dropout after_mixer(int l) const { return dropout_at(3 * l + 1); }
  Dropout after_mlp(int l) const { return dropout_at(3 * l + 2); }
  Dropout of_weights(int l) const { return {job_->seed, 3 * l + 3, job_->mixer_dropout}; }

  // Draws which channels of a block of tokens stay, if any goes.
  void draw(const Dropout& dropout, const Part& part) {
    const int width = m_.d_model;
    if (dropout) part.own.stays.draw(dropout, 0, part.first, part.count, 0, [width](int) { return width; });
  }

  // f(attention, heads, row, group) for all sequences and groups of heads.
  template <typename F>
  void attend(int l, Team team, F f) {
    Held<T>& h = layer(l);
    const Heads<T> heads{h.q.at(0),         h.k.at(0),       h.v.at(0),       h.mixed.at(0),   h.logs.data(),
                         held_.d_mixed.at(0), held_.d_q.at(0), held_.d_k.at(0), held_.d_v.at(0), h.q.stride,
                         h.k.stride,         of_weights(l)};
    team.share(m_.n_rows * m_.n_groups, [&](int i) {
      f(*held_.own[team.index]->attention, heads, i / m_.n_groups, i % m_.n_groups);
    });
  }

  TrainedModel m_;
  Memory<T> held_;
  TrainingJob* job_ = nullptr;
  std::vector<Piece> of_layer_, of_head_;  // weights in pieces; `thing` is the place in a layer
};

}  // namespace
}  // namespace assay
