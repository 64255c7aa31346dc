// Forward: the features of every token, with what their gradients will need.

#pragma once

#include "training_work.h"

namespace assay {
namespace {

template <typename T>
class Forward : public Work<T> {
 public:
  using Work<T>::Work;

  void forward(Team team) {
    pack_weights(team);
    blocks(team, [&](const Part& part) {
      embed(part);
      enter_mixer(0, part);
    });
    for (int l = 0; l < m_.n_layers; ++l) {
      if (m_.n_heads)
        attend(l, team, [](Attention<T>& attention, const Heads<T>& heads, int row, int group) {
          attention.forward(heads, row, group);
        });
      blocks(team, [&](const Part& part) {
        if (m_.n_heads) leave_mixer(l, part);
        feed_forward(l, part);
        if (l + 1 < m_.n_layers) enter_mixer(l + 1, part);
      });
    }
  }

 protected:
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

 private:
  void pack(const TrainedLinear& w, Panels<T>& panels, const Piece& piece) {
    const int first = piece.first, last = first + piece.count;
    pack_columns(w.weight, w.n_in, w.n_in, w.n_out, panels.forward.data(), first / kPanel,
                 (last + kPanel - 1) / kPanel);
    pack_rows(w.weight + int64_t(piece.first) * w.n_in, w.n_in, first, piece.count, w.n_in, panels.back.data(),
              panel_size<T>(w.n_out));
  }

  void pack_weights(Team team) {
    const int in_layer = of_layer_.size(), in_layers = m_.n_layers * in_layer;
    team.share(in_layers + int(of_head_.size()), [&](int i) {
      if (i >= in_layers) return pack(m_.head, held_.head, of_head_[i - in_layers]);
      const int l = i / in_layer;
      const Piece& piece = of_layer_[i % in_layer];
      pack(linear_at(m_.layers[l], piece.thing), panels(l, piece.thing), piece);
    });
  }

  void embed(const Part& part) {
    const int d = m_.d_model;
    const Dropout dropout = dropout_at(0);
    draw(dropout, part);
    for (int i = part.first; i < part.first + part.count; ++i) {
      float* x = held_.raw.at(i);
      std::memcpy(x, m_.embed + int64_t(token_at(i, 0)) * d, 4 * d);
      if (m_.added) add_row(x, m_.added + int64_t(i % m_.seq_len) * d, d);
      if (dropout) drop_row(x, part.own.stays.at(i - part.first), dropout.factor, x, d);
      held_.embed_stats[i] = normalise(m_.embed_norm, x, in_of(0).at(i), d);
    }
  }

  // What enters a branch: normalised or as it is, in the precision of products.
  void enter(const TrainedNorm& norm, Rows<float>& from, std::vector<Stats>& stats, const Part& part,
             Row<T>& panels) {
    for (int i = 0; i < part.count; ++i) {
      const float* x = from.at(part.first + i);
      if (before())
        stats[part.first + i] = normalise(norm, x, part.own.in.at(i), m_.d_model);
      else
        cast_row(x, part.own.in.at(i), m_.d_model);
    }
    keep_panels(part.own.in, 0, part, m_.d_model, panels);
  }

  void enter_mixer(int l, const Part& part) {
    if (!m_.n_heads) return;
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    enter(w.mixer_norm, h.in, h.mixer_stats, part, h.mixer_in);
    heads_forward(l, kQ, w.q_norm, &h.q_raw, h.q, part);
    heads_forward(l, kK, w.k_norm, &h.k_raw, h.k, part);
    heads_forward(l, kV, TrainedNorm{}, nullptr, h.v, part);
  }

  // Queries, keys (normed and turned) or values of a block.
  void heads_forward(int l, int place, const TrainedNorm& norm, Rows<T>* raw, Rows<T>& out, const Part& part) {
    const TrainedLinear& w = linear_at(m_.layers[l], place);
    Rows<float>& c = part.own.wide;
    through(w, panels(l, place), part.own.in.at(0), part.own.in.stride, part.count, c.at(0), c.stride);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float* x = c.at(i);
      if (norm.kind != kNoNorm) {  // of what is held, rounded
        cast_row(x, raw->at(token), w.n_out);
        cast_row(raw->at(token), x, w.n_out);
      }
      for (int at = 0; raw && at < w.n_out; at += m_.d_head) {
        if (norm.kind != kNoNorm) normalise(norm, x + at, x + at, m_.d_head);
        turn_head(x + at, token, false);
      }
      cast_row(x, out.at(token), w.n_out);
    }
  }

  // What comes out of a branch, upon the stream where it is added to it.
  void leave(int l, int place, const T* x, int64_t x_stride, const Dropout& dropout, Rows<float>& stream,
             Rows<float>& out, const Part& part) {
    float* to = out.at(part.first);
    const float* seed = adds() ? stream.at(part.first) : nullptr;
    through(linear_at(m_.layers[l], place), panels(l, place), x, x_stride, part.count, to, out.stride,
            dropout ? nullptr : seed);
    if (!dropout) return;
    draw(dropout, part);
    for (int i = 0; i < part.count; ++i) {
      drop_row(to + i * out.stride, part.own.stays.at(i), dropout.factor, to + i * out.stride, m_.d_model);
      if (seed) add_row(to + i * out.stride, seed + i * stream.stride, m_.d_model);
    }
  }

  void leave_mixer(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    Rows<float>& out = h.summed;
    leave(l, kOut, h.mixed.at(part.first), h.mixed.stride, after_mixer(l), h.in, out, part);
    if (before()) return;
    for (int i = part.first; i < part.first + part.count; ++i)
      h.mixer_stats[i] = normalise(w.mixer_norm, out.at(i), h.middle.at(i), m_.d_model);
  }

  void feed_forward(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    Own<T>& own = part.own;
    Rows<float>& middle = middle_of(l);
    enter(w.mlp_norm, m_.block == kParallel ? h.in : middle, h.mlp_stats, part, h.mlp_in);
    through(w.up, panels(l, kUp), own.in.at(0), own.in.stride, part.count, own.wide.at(0), own.wide.stride);
    if (m_.gated)
      through(w.gate, panels(l, kGate), own.in.at(0), own.in.stride, part.count, own.also.at(0), own.also.stride);
    for (int i = 0; i < part.count; ++i) {
      cast_row(own.wide.at(i), h.up.at(part.first + i), m_.d_ff);
      if (m_.gated) cast_row(own.also.at(i), h.gate.at(part.first + i), m_.d_ff);
      act(h, part.first + i, own.acted.at(i));
    }
    Rows<float>& out = before() ? in_of(l + 1) : h.ended;
    leave(l, kDown, own.acted.at(0), own.acted.stride, after_mlp(l), middle, out, part);
    if (before()) return;
    for (int i = part.first; i < part.first + part.count; ++i)
      h.mlp_stats[i] = normalise(w.mlp_norm, out.at(i), in_of(l + 1).at(i), m_.d_model);
  }

  void act(Held<T>& h, int token, T* out) {
    const T *up = h.up.at(token), *gate = m_.gated ? h.gate.at(token) : nullptr;
    each(m_.d_ff, [&](int i, int n) {
      const Vec u = take(up + i, n);
      put(out + i, gate ? u * bend(m_.activation, take(gate + i, n)).value : bend(m_.activation, u).value, n);
    });
  }
};

}  // namespace
}  // namespace assay
