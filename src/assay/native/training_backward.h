// Backward: the loss, and the gradient of every parameter.

#pragma once

#include "training_forward.h"

namespace assay {
namespace {

template <typename T>
class Backward : public Forward<T> {
 public:
  using Forward<T>::Forward;

  // What every next token costs, and nothing else.
  void judge(Team team) {
    blocks(team, [&](const Part& part) {
      score(part);
      std::copy_n(&held_.losses[part.first], part.count, job_->losses + part.first);
    });
  }

  // Returns the mean loss, in nats, to the first thread.
  double backward(Team team) {
    learn_head(team);
    for (int l = m_.n_layers - 1; l >= 0; --l) layer_backward(l, team);
    learn_embedding(team);
    if (team.index) return 0;
    double whole = 0;
    for (float loss : held_.losses) whole += loss;
    return whole / held_.n;
  }

 private:
  using typename Work<T>::Part;
  using Work<T>::m_;
  using Work<T>::held_;
  using Work<T>::job_;
  using Work<T>::of_layer_;
  using Work<T>::of_head_;
  using Work<T>::before;
  using Work<T>::adds;
  using Work<T>::layer;
  using Work<T>::panels;
  using Work<T>::in_of;
  using Work<T>::middle_of;
  using Work<T>::blocks;
  using Work<T>::token_at;
  using Work<T>::through;
  using Work<T>::keep_panels;
  using Work<T>::turn_head;
  using Work<T>::attend;
  using Work<T>::dropout_at;
  using Work<T>::after_mixer;
  using Work<T>::after_mlp;
  using Work<T>::draw;

  // --- the head: the loss, and its gradient down to the last layer

  void learn_head(Team team) {
    for (int first = 0; first < held_.n; first += held_.chunk) {
      const int count = std::min<int64_t>(held_.chunk, held_.n - first);
      blocks(team, [&](const Part& part) { head_block(first, count, part); }, first, count);
      team.share(of_head_.size(), [&](int i) {
        learn(m_.head, of_head_[i], held_.turned_head, held_.x_head, count, job_->add || first);
      });
    }
    team.share(1, [&](int) { add_norm_sums(m_.final_norm, 0, m_.d_model); });
  }

  // The losses of a block, its features in `in` and the gradients of its logits in `d_logits`.
  void score(const Part& part) {
    Own<T>& own = part.own;
    const int first = part.first;
    for (int i = 0; i < part.count; ++i)
      held_.final_stats[first + i] = normalise(m_.final_norm, held_.last.at(first + i), own.in.at(i), m_.d_model);
    through(m_.head, held_.head, own.in.at(0), own.in.stride, part.count, own.wide.at(0), own.wide.stride);
    for (int i = 0; i < part.count; ++i)
      held_.losses[first + i] = next_token_loss(own.wide.at(i), m_.vocab, token_at(first + i, 1), m_.head_factor,
                                                m_.soft_cap, job_->scale / held_.n, own.d_logits.at(i));
  }

  void head_block(int chunk, int n_chunk, const Part& part) {
    Own<T>& own = part.own;
    const int first = part.first, d = m_.d_model;
    clear_norm_sums(part);
    score(part);
    pack_rows(own.in.at(0), own.in.stride, first - chunk, part.count, d, held_.x_head.data(),
              panel_size<T>(n_chunk));
    back_through(m_.head, held_.head, own.d_logits, part, held_.turned_head, first - chunk, n_chunk, own.narrow);
    for (int i = 0; i < part.count; ++i) {
      std::fill_n(held_.dx.at(first + i), d, 0.0f);
      undo_norm(m_.final_norm, held_.last.at(first + i), held_.final_stats[first + i], own.narrow.at(i),
                held_.dx.at(first + i), 0, part);
    }
  }

  // --- gradients of weights

  // A piece of d_weight = or += dy^T x over `count` tokens.
  void learn(const TrainedLinear& w, const Piece& piece, const Row<T>& turned, const Row<T>& x, int count,
             bool add) {
    const Left<T> dy = Left<T>::turned(turned.data(), count).from(piece.first, 0);
    float* to = w.d_weight + int64_t(piece.first) * w.n_in;
    multiply(dy, piece.count, x.data(), panel_size<T>(count), w.n_in, count, to, w.n_in, add ? to : nullptr);
  }

  // The gradient of a bias: sums over the rows of dy, a block of tokens each, added up in their order.
  void sum_rows(const TrainedLinear& w, Rows<T>& dy, Floats& sums, const Part& part) {
    if (!w.d_bias) return;
    float* to = &sums[part.index * padded(w.n_out)];
    std::fill_n(to, w.n_out, 0.0f);
    for (int i = 0; i < part.count; ++i) add_row(to, dy.at(i), w.n_out);
  }

  void add_bias_sums(const TrainedLinear& w, const Floats& sums) {
    if (!w.d_bias) return;
    if (!job_->add) std::fill_n(w.d_bias, w.n_out, 0.0f);
    for (int b = 0; b < held_.n_blocks; ++b) add_row(w.d_bias, &sums[b * padded(w.n_out)], w.n_out);
  }

  void learn_layer(int l, Team team) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    const Row<T>* inputs[] = {&h.mixer_in,  &h.mixer_in, &h.mixer_in, &held_.x_out,
                              &h.mlp_in, &h.mlp_in, &held_.x_down};
    const TrainedNorm* norms[] = {&w.mixer_norm, &w.mlp_norm, &w.q_norm, &w.k_norm};
    const int weights = of_layer_.size();
    team.share(weights + kPlaces + 4, [&](int i) {
      if (i < weights) {
        const Piece& piece = of_layer_[i];
        const int place = piece.thing;
        learn(linear_at(w, place), piece, held_.turned[place], *inputs[place], held_.n, job_->add);
      } else if (const int place = i - weights; place < kPlaces) {
        add_bias_sums(linear_at(w, place), held_.bias_sums[place]);
      } else {
        const int which = place - kPlaces;
        add_norm_sums(*norms[which], which, which < 2 ? m_.d_model : m_.d_head);
      }
    });
  }

  // c = or += dy W, and dy is laid out for the gradient of W.
  void back_through(const TrainedLinear& w, const Panels<T>& panels, Rows<T>& dy, const Part& part,
                    Row<T>& turned, int first, int64_t n_all, Rows<float>& c, bool add = false) {
    multiply(Left<T>::rows(dy.at(0), dy.stride), part.count, panels.back.data(), panel_size<T>(w.n_out),
             w.n_in, w.n_out, c.at(0), c.stride, add ? c.at(0) : nullptr);
    pack_turned(dy.at(0), dy.stride, first, part.count, w.n_out, turned.data(), n_all);
  }

  void back_through(int l, int place, Rows<T>& dy, const Part& part, Rows<float>& c, bool add = false) {
    const TrainedLinear& w = linear_at(m_.layers[l], place);
    back_through(w, panels(l, place), dy, part, held_.turned[place], part.first, held_.n, c, add);
    sum_rows(w, dy, held_.bias_sums[place], part);
  }

  // --- backward: dx holds the gradient of the stream, at ever earlier places

  void layer_backward(int l, Team team) {
    blocks(team, [&](const Part& part) {
      clear_norm_sums(part);
      back_feed_forward(l, part);
      if (m_.n_heads) back_to_mixer(l, part);
    });
    if (m_.n_heads) {
      attend(l, team, [](Attention<T>& attention, const Heads<T>& heads, int row, int group) {
        attention.backward(heads, row, group);
      });
      blocks(team, [&](const Part& part) { back_from_mixer(l, part); });
    }
    learn_layer(l, team);
  }

  void back_feed_forward(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    Own<T>& own = part.own;
    const Dropout dropout = after_mlp(l);
    draw(dropout, part);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float* dx = held_.dx.at(token);
      if (!before()) replace_by_norm(w.mlp_norm, h.ended.at(token), h.mlp_stats[token], dx, 1, part);
      back_to_branch(dropout, i, dx, own);
    }
    back_through(l, kDown, own.d_branch, part, own.wide);
    for (int i = 0; i < part.count; ++i) back_act(h, part.first + i, i, own);
    keep_panels(own.acted, 0, part, m_.d_ff, held_.x_down);
    back_through(l, kUp, own.d_up, part, own.narrow);
    if (m_.gated) back_through(l, kGate, own.d_gate, part, own.narrow, true);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float *dx = held_.dx.at(token), *dy = own.narrow.at(i);
      if (m_.block == kPre) {
        undo_norm(w.mlp_norm, middle_of(l).at(token), h.mlp_stats[token], dy, dx, 1, part);
      } else if (m_.block == kParallel) {
        std::memcpy(held_.also_dx.at(token), dx, 4 * m_.d_model);
        undo_norm(w.mlp_norm, h.in.at(token), h.mlp_stats[token], dy, held_.also_dx.at(token), 1, part);
      } else {
        add_branch(dx, dy);
      }
    }
  }

  // The gradient of what token i of a block got from a branch, in the precision of products.
  void back_to_branch(const Dropout& dropout, int i, const float* dx, Own<T>& own) {
    if (dropout)
      drop_row(dx, own.stays.at(i), dropout.factor, own.d_branch.at(i), m_.d_model);
    else
      cast_row(dx, own.d_branch.at(i), m_.d_model);
  }

  void add_branch(float* dx, const float* dy) {
    if (!adds()) std::fill_n(dx, m_.d_model, 0.0f);
    add_row(dx, dy, m_.d_model);
  }

  // From the gradient of what the activation gave out, in `wide`, to those of what went in.
  void back_act(Held<T>& h, int token, int i, Own<T>& own) {
    const T *up = h.up.at(token), *gate = m_.gated ? h.gate.at(token) : nullptr;
    const float* d_out = own.wide.at(i);
    T *out = own.acted.at(i), *d_up = own.d_up.at(i), *d_gate = gate ? own.d_gate.at(i) : nullptr;
    each(m_.d_ff, [&](int j, int n) {
      const Vec u = take(up + j, n), d = take(d_out + j, n);
      const Bent b = bend(m_.activation, gate ? take(gate + j, n) : u);
      put(out + j, gate ? u * b.value : b.value, n);
      put(d_up + j, d * (gate ? b.value : b.slope), n);
      if (gate) put(d_gate + j, d * u * b.slope, n);
    });
  }

  void back_to_mixer(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    Own<T>& own = part.own;
    const Dropout dropout = after_mixer(l);
    draw(dropout, part);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float* dx = held_.dx.at(token);
      if (!before()) replace_by_norm(w.mixer_norm, h.summed.at(token), h.mixer_stats[token], dx, 0, part);
      back_to_branch(dropout, i, dx, own);
    }
    keep_panels(h.mixed, part.first, part, w.out.n_in, held_.x_out);
    back_through(l, kOut, own.d_branch, part, own.wide);
    for (int i = 0; i < part.count; ++i) cast_row(own.wide.at(i), held_.d_mixed.at(part.first + i), w.out.n_in);
  }

  void back_from_mixer(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    back_heads(l, kQ, w.q_norm, &h.q_raw, held_.d_q, 2, part);
    back_heads(l, kK, w.k_norm, &h.k_raw, held_.d_k, 3, part);
    back_heads(l, kV, TrainedNorm{}, nullptr, held_.d_v, 0, part);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float *dx = held_.dx.at(token), *dy = part.own.narrow.at(i);
      if (m_.block == kParallel) std::memcpy(dx, held_.also_dx.at(token), 4 * m_.d_model);
      if (before())
        undo_norm(w.mixer_norm, h.in.at(token), h.mixer_stats[token], dy, dx, 0, part);
      else
        add_branch(dx, dy);
    }
  }

  // From the gradients of queries, keys or values to that of what entered the mixer.
  void back_heads(int l, int place, const TrainedNorm& norm, Rows<T>* raw, Rows<float>& d, int which,
                  const Part& part) {
    const TrainedLinear& w = linear_at(m_.layers[l], place);
    Rows<T>& narrowed = place == kQ ? part.own.d_heads : part.own.d_groups;
    float* sums = norm_sums(which, part.index);
    float *x = part.own.scratch.at(0), *dy = part.own.scratch.at(1), *ignored = part.own.scratch.at(2);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      for (int at = 0; raw && at < w.n_out; at += m_.d_head) {
        float* d_head = d.at(token) + at;
        turn_head(d_head, token, true);
        if (norm.kind == kNoNorm) continue;
        cast_row(raw->at(token) + at, x, m_.d_head);
        std::memcpy(dy, d_head, 4 * m_.d_head);
        std::fill_n(d_head, m_.d_head, 0.0f);
        const Stats s = normalise(norm, x, ignored, m_.d_head);
        unnormalise(norm, x, s, dy, d_head, m_.d_head, sums, sums + padded(m_.d_head));
      }
      cast_row(d.at(token), narrowed.at(i), w.n_out);
    }
    back_through(l, place, narrowed, part, part.own.narrow, place != kQ);
  }

  // --- the embedding

  void back_to_embedding(Team team) {
    const bool normed = m_.embed_norm.kind != kNoNorm;
    const Dropout dropout = dropout_at(0);
    blocks(team, [&](const Part& part) {
      clear_norm_sums(part);
      draw(dropout, part);
      for (int i = part.first; i < part.first + part.count; ++i) {
        float* dx = held_.dx.at(i);
        if (normed) replace_by_norm(m_.embed_norm, held_.raw.at(i), held_.embed_stats[i], dx, 0, part);
        if (dropout) drop_row(dx, part.own.stays.at(i - part.first), dropout.factor, dx, m_.d_model);
      }
    });
    if (team.index == 0) add_norm_sums(m_.embed_norm, 0, m_.d_model);
  }

  void learn_embedding(Team team) {
    const int d = m_.d_model;
    if (m_.embed_norm.kind != kNoNorm || dropout_at(0)) back_to_embedding(team);
    team.share((d + kPad - 1) / kPad, [&](int i) { learn_columns(i * kPad, std::min(kPad, d - i * kPad)); });
  }

  // Of the embedding and of what is added to it.
  void learn_columns(int first, int count) {
    const int d = m_.d_model;
    if (!job_->add) {
      for (int token = 0; !m_.tied && token < m_.vocab; ++token)
        std::fill_n(m_.d_embed + int64_t(token) * d + first, count, 0.0f);
      for (int t = 0; m_.d_added && t < m_.seq_len; ++t)
        std::fill_n(m_.d_added + int64_t(t) * d + first, count, 0.0f);
    }
    for (int i = 0; i < held_.n; ++i) {
      const float* dx = held_.dx.at(i) + first;
      add_row(m_.d_embed + int64_t(token_at(i, 0)) * d + first, dx, count);
      if (m_.d_added) add_row(m_.d_added + int64_t(i % m_.seq_len) * d + first, dx, count);
    }
  }

  // --- sums of the gradients of norms: one for each block of tokens, added up in their order

  void clear_norm_sums(const Part& part) {
    for (int which = 0; which < 4; ++which)
      std::fill_n(norm_sums(which, part.index), held_.norm_sums[which].size() / held_.n_blocks, 0.0f);
  }

  float* norm_sums(int which, int block) {
    return held_.norm_sums[which].data() + int64_t(block) * (held_.norm_sums[which].size() / held_.n_blocks);
  }

  void undo_norm(const TrainedNorm& norm, const float* x, const Stats& s, const float* dy, float* dx,
                 int which, const Part& part) {
    float* sums = norm_sums(which, part.index);
    unnormalise(norm, x, s, dy, dx, m_.d_model, sums, sums + padded(m_.d_model));
  }

  // dx becomes the gradient through a norm that stands on the stream itself.
  void replace_by_norm(const TrainedNorm& norm, const float* x, const Stats& s, float* dx, int which,
                       const Part& part) {
    float* dy = part.own.scratch.at(0);
    std::memcpy(dy, dx, 4 * m_.d_model);
    std::fill_n(dx, m_.d_model, 0.0f);
    undo_norm(norm, x, s, dy, dx, which, part);
  }

  void add_norm_sums(const TrainedNorm& norm, int which, int width) {
    for (int half = 0; half < 2; ++half) {
      float* out = half ? norm.d_bias : norm.d_weight;
      if (!out) continue;
      if (!job_->add) std::fill_n(out, width, 0.0f);
      for (int b = 0; b < held_.n_blocks; ++b) add_row(out, norm_sums(which, b) + half * padded(width), width);
    }
  }
};

}  // namespace
}  // namespace assay
