// Attention of one sequence and one group of heads, forward and backward, over blocks of queries.
// All scores of a block exist at once; keys that none of its queries sees are left out, and those that
// half of it does not see are left out of the products of that half.

#pragma once

#include "training_dropout.h"

namespace assay {
namespace {

constexpr int kQueries = 64, kHalf = kQueries / 2;

template <typename T>
struct Heads {  // rows of all tokens: q, k, v with their strides, what comes of them, and gradients
  const T *q, *k, *v;
  T* mixed;
  float* logs;  // of each head and token: the logarithm of the sum of its weights
  const T* d_mixed;
  float *d_q, *d_k, *d_v;
  int64_t q_stride, k_stride;  // numbers from one token to the next
  Dropout dropout;             // of the weights
};

template <typename T>
class Attention {
 public:
  explicit Attention(const TrainedModel& m)
      : m_(m), scale_(1.0f / std::sqrt(float(m.d_head))), wide_(padded(m.seq_len)), head_(padded(m.d_head)),
        scores_(kQueries * wide_), also_(kQueries * wide_), out_(kQueries * head_),
        d_keys_(wide_ * head_), d_values_(wide_ * head_), weights_(size(kQueries, wide_)),
        d_scores_(size(kQueries, wide_)), turned_(size(wide_, padded(kQueries))),
        k_columns_(size(wide_, head_)), v_columns_(size(wide_, head_)), k_rows_(size(wide_, head_)),
        v_rows_(size(wide_, head_)), q_block_(size(kQueries, head_)), o_block_(size(kQueries, head_)),
        one_head_(size(kQueries, head_)), stays_(kQueries, wide_) {}

  void forward(const Heads<T>& h, int row, int group) {
    pack_keys(h, row, group, false);
    for (int head = first_head(group); head < first_head(group + 1); ++head)
      for (int first = 0; first < m_.seq_len; first += kQueries) {
        const Piece piece = piece_of(first);
        const T* q = h.q + int64_t(row * m_.seq_len + first) * h.q_stride + head * m_.d_head;
        score(q, h.q_stride, piece, k_columns_.data(), scores_.data());
        draw(h, row, head, piece);
        for (int i = 0; i < piece.n_queries; ++i) weigh(h, row, head, piece, i);
        mix(h, row, head, piece);
      }
  }

  void backward(const Heads<T>& h, int row, int group) {
    pack_keys(h, row, group, true);
    std::fill(d_keys_.begin(), d_keys_.end(), 0.0f);
    std::fill(d_values_.begin(), d_values_.end(), 0.0f);
    for (int head = first_head(group); head < first_head(group + 1); ++head)
      for (int first = 0; first < m_.seq_len; first += kQueries)
        back(h, row, head, piece_of(first));
    for (int t = 0; t < m_.seq_len; ++t) {
      const int64_t at = int64_t(row * m_.seq_len + t) * h.k_stride + group * m_.d_head;
      std::memcpy(h.d_k + at, &d_keys_[t * head_], 4 * m_.d_head);
      std::memcpy(h.d_v + at, &d_values_[t * head_], 4 * m_.d_head);
    }
  }

 private:
  typedef std::vector<T, OnLines<T>> Row;

  struct Piece {  // queries and the keys that at least one of them sees
    int first_query, n_queries, first_key, n_keys;
    int until(int query) const { return first_query - first_key + query; }  // keys before one of the queries
  };

  static size_t size(int64_t rows, int64_t width) { return (rows + kPad) * (width + kPad); }
  int first_head(int group) const { return group * (m_.n_heads / m_.n_groups); }

  Piece piece_of(int first) const {
    const int end = first + kQueries < m_.seq_len ? first + kQueries : m_.seq_len;
    int key = m_.window && first >= m_.window ? first - m_.window + 1 : 0;
    key = key / kPad * kPad;
    return {first, end - first, key, end - key};
  }

  void pack_keys(const Heads<T>& h, int row, int group, bool learns) {
    const int n = m_.seq_len, n_panels = (n + kPanel - 1) / kPanel, width = m_.d_head;
    const int64_t at = int64_t(row) * n * h.k_stride + group * width;
    pack_columns(h.k + at, h.k_stride, width, n, k_columns_.data(), 0, n_panels);
    const int64_t panel = panel_size<T>(n);
    if (learns) {
      pack_columns(h.v + at, h.k_stride, width, n, v_columns_.data(), 0, n_panels);
      pack_rows(h.k + at, h.k_stride, 0, n, width, k_rows_.data(), panel);
    } else {
      pack_rows(h.v + at, h.k_stride, 0, n, width, v_rows_.data(), panel);
    }
  }

  // scores = rows of queries times the keys of a piece, given as columns.
  void score(const T* rows, int64_t stride, const Piece& p, const T* columns, float* scores) {
    const int64_t panel = panel_size<T>(m_.d_head);
    const Left<T> queries = zero_beyond_head(rows, stride, p.n_queries);
    by_halves(p, [&](int first, int count) {
      multiply(queries.from_row(first), count, columns + p.first_key / kPanel * panel, panel, p.until(first + count),
               m_.d_head, scores + first * wide_, wide_, nullptr);
    });
  }

  // Rows of one head as a left operand. What stands behind them belongs to the next head or token; where that
  // would be read, they are copied to where zeros are.
  Left<T> zero_beyond_head(const T* rows, int64_t stride, int count) {
    if (m_.d_head % reads_at_once<T>() == 0) return Left<T>::rows(rows, stride);
    for (int i = 0; i < count; ++i) std::memcpy(&one_head_[i * head_], rows + i * stride, sizeof(T) * m_.d_head);
    return Left<T>::rows(one_head_.data(), head_);
  }

  // f(first, count) for each half of the queries.
  template <typename F>
  void by_halves(const Piece& p, F f) {
    for (int first = 0; first < p.n_queries; first += kHalf) f(first, std::min(kHalf, p.n_queries - first));
  }

  // Biases the scores of query i; -inf where it does not see a key. Returns up to where it sees some,
  // in whole vectors. All scores are still to be scaled.
  int see(const Piece& p, int head, int i, float* scores) {
    const int query = p.first_query + i - p.first_key;  // counted from the first key
    const int end = query / kLanes * kLanes + kLanes;
    if (m_.slopes) {
      const float slope = m_.slopes[head] / scale_;
      Vec distance;
      for (int lane = 0; lane < kLanes; ++lane) distance[lane] = lane - query;
      for (int j = 0; j < end; j += kLanes)
        store(scores + j, fused(splat(slope), distance + float(j), load(scores + j)));
    }
    std::fill(scores + query + 1, scores + end, -INFINITY);
    if (m_.window && query >= m_.window) std::fill(scores, scores + query - m_.window + 1, -INFINITY);
    return end;
  }

  // Draws which weights stay, if any goes.
  void draw(const Heads<T>& h, int row, int head, const Piece& p) {
    if (!h.dropout) return;
    const int before = p.first_query - p.first_key;
    stays_.draw(h.dropout, row * m_.n_heads + head, p.first_query, p.n_queries, p.first_key,
                [before](int i) { return before + i + 1; });
  }

  // No key from `end` on has a weight.
  void clear(const Piece& p, int end, T* weights) { std::fill(weights + end, weights + padded(p.n_keys), T{}); }

  void weigh(const Heads<T>& h, int row, int head, const Piece& p, int i) {
    float* scores = &scores_[i * wide_];
    const int end = see(p, head, i, scores);
    Vec peak = load(scores);
    for (int j = kLanes; j < end; j += kLanes) {
      const Vec v = load(scores + j);
      peak = v > peak ? v : peak;
    }
    const float most = largest(peak) * scale_;
    Vec whole = {};
    T* weights = &weights_[i * wide_];
    for (int j = 0; j < end; j += kLanes) {
      const Vec w = exp(fused(load(scores + j), splat(scale_), splat(-most)));
      whole += w;
      store(weights + j, h.dropout ? staying(stays_.at(i), j, w) : w);
    }
    clear(p, end, weights);
    sums_[i] = sum(whole);
    const int query = p.first_query + i;
    h.logs[(int64_t(row) * m_.n_heads + head) * m_.seq_len + query] = most + std::log(sums_[i]);
  }

  void mix(const Heads<T>& h, int row, int head, const Piece& p) {
    multiply_keys(weights_.data(), p, v_rows_.data(), out_.data());
    for (int i = 0; i < p.n_queries; ++i) {
      const float share = h.dropout.factor / sums_[i];
      float* out = &out_[i * head_];
      map(out, m_.d_head, [share](Vec v) { return v * share; });
      const int64_t token = int64_t(row) * m_.seq_len + p.first_query + i;
      cast_row(out, h.mixed + token * h.q_stride + head * m_.d_head, m_.d_head);
    }
  }

  // out = weights (queries x keys of a piece) times rows of keys.
  void multiply_keys(const T* weights, const Piece& p, const T* rows, float* out) {
    by_halves(p, [&](int first, int count) {
      multiply(Left<T>::rows(weights + first * wide_, wide_), count, rows + p.first_key * kPanel,
               panel_size<T>(m_.seq_len), m_.d_head, p.until(first + count), out + first * head_, head_, nullptr);
    });
  }

  void back(const Heads<T>& h, int row, int head, const Piece& p) {
    const int64_t token = int64_t(row) * m_.seq_len + p.first_query, at = token * h.q_stride + head * m_.d_head;
    const T *q = h.q + at, *d_mixed = h.d_mixed + at;
    score(q, h.q_stride, p, k_columns_.data(), scores_.data());
    score(d_mixed, h.q_stride, p, v_columns_.data(), also_.data());
    draw(h, row, head, p);
    for (int i = 0; i < p.n_queries; ++i) {
      float* scores = &scores_[i * wide_];
      const int end = see(p, head, i, scores);
      const float log = h.logs[(int64_t(row) * m_.n_heads + head) * m_.seq_len + p.first_query + i];
      const float mean = inner(d_mixed + i * h.q_stride, h.mixed + at + i * h.q_stride);
      const float* d = &also_[i * wide_];
      T *weights = &weights_[i * wide_], *d_scores = &d_scores_[i * wide_];
      for (int j = 0; j < end; j += kLanes) {
        const Vec w = exp(fused(load(scores + j), splat(scale_), splat(-log)));
        const Vec left = h.dropout ? staying(stays_.at(i), j, splat(h.dropout.factor)) : splat(1.0f);
        store(weights + j, w * left);
        store(d_scores + j, w * (load(d + j) * left - mean) * scale_);
      }
      clear(p, end, weights);
      clear(p, end, d_scores);
    }
    multiply_keys(d_scores_.data(), p, k_rows_.data(), out_.data());
    for (int i = 0; i < p.n_queries; ++i)
      std::memcpy(h.d_q + at + i * h.q_stride, &out_[i * head_], 4 * m_.d_head);
    const int64_t panel = panel_size<T>(p.n_queries);
    pack_rows(q, h.q_stride, 0, p.n_queries, m_.d_head, q_block_.data(), panel);
    pack_rows(d_mixed, h.q_stride, 0, p.n_queries, m_.d_head, o_block_.data(), panel);
    to_keys(d_scores_.data(), p, q_block_.data(), d_keys_.data());
    to_keys(weights_.data(), p, o_block_.data(), d_values_.data());
  }

  // sums (keys x channels) += the transpose of weights (queries x keys) times rows of queries.
  void to_keys(const T* weights, const Piece& p, const T* rows, float* sums) {
    pack_turned(weights, wide_, 0, p.n_queries, p.n_keys, turned_.data(), p.n_queries);
    const Left<T> turned = Left<T>::turned(turned_.data(), p.n_queries);
    by_halves(p, [&](int first, int count) {  // keys that only queries from `first` on see
      const int key = first ? p.until(first) : 0;
      float* to = sums + (p.first_key + key) * head_;
      multiply(turned.from(key, first), p.until(first + count) - key, rows + first * kPanel,
               panel_size<T>(p.n_queries), m_.d_head, p.n_queries - first, to, head_, to);
    });
  }

  float inner(const T* a, const T* b) {
    Vec whole = {};
    each(m_.d_head, [&](int i, int n) { whole += take(a + i, n) * take(b + i, n); });
    return sum(whole);
  }

  const TrainedModel& m_;
  const float scale_;
  const int64_t wide_, head_;
  Floats scores_, also_, out_, d_keys_, d_values_;
  Row weights_, d_scores_, turned_, k_columns_, v_columns_, k_rows_, v_rows_, q_block_, o_block_, one_head_;
  Stays stays_;
  float sums_[kQueries];
};

}  // namespace
}  // namespace assay
