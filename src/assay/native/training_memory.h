// The memory of a training pass: kept from step to step, of one batch shape and one architecture.

#pragma once

#include <algorithm>
#include <memory>

#include "team.h"
#include "training_attention.h"

namespace assay {
namespace {

constexpr int64_t kChunkLogits = 1 << 25;  // gradients of logits that exist at once

template <typename T>
using Row = std::vector<T, OnLines<T>>;

// Rows of tokens, `stride` numbers each, with room to read on behind the last.
template <typename T>
struct Rows {
  int64_t stride = 0;
  Row<T> held;
  Rows() = default;
  Rows(int64_t n, int64_t width) : stride(padded(width)), held(n && width ? (n + kPad) * stride + kPad : 0) {}
  T* at(int64_t row) { return held.data() + row * stride; }
};

enum Place { kQ, kK, kV, kOut, kGate, kUp, kDown, kPlaces };

inline const TrainedLinear& linear_at(const TrainedLayer& layer, int place) {
  const TrainedLinear* all[] = {&layer.q,    &layer.k,  &layer.v,   &layer.out,
                                &layer.gate, &layer.up, &layer.down};
  return *all[place];
}

// A weight as B: for the forward pass, and for the gradient of what goes in.
template <typename T>
struct Panels {
  Row<T> forward, back;
  void make_room(const TrainedLinear& w) {
    if (!w.weight) return;
    forward.resize(panels_size<T>(w.n_out, w.n_in));
    back.resize(panels_size<T>(w.n_in, w.n_out));
  }
};

template <typename T>
struct Held {  // what the backward pass needs of a layer
  Rows<float> in, summed, middle, ended;  // before it; after the mixer; normed again; after the MLP
  Rows<T> q_raw, k_raw, q, k, v, mixed, gate, up;
  Row<T> mixer_in, mlp_in;  // in panels
  Floats logs;
  std::vector<Stats> mixer_stats, mlp_stats;

  Held(const TrainedModel& m, const TrainedLayer& w, int n, bool before)
      : in(n, m.d_model), ended(before ? 0 : n, m.d_model), gate(m.gated ? n : 0, m.d_ff), up(n, m.d_ff),
        mlp_in(panels_size<T>(m.d_model, n)), mlp_stats(n) {
    if (!m.n_heads) return;
    const int heads = m.n_heads * m.d_head, groups = m.n_groups * m.d_head;
    const bool normed = w.q_norm.kind != kNoNorm;
    summed = {n, m.d_model};
    middle = {before ? 0 : n, m.d_model};
    q_raw = {normed ? n : 0, heads};
    k_raw = {normed ? n : 0, groups};
    q = mixed = {n, heads};
    k = v = {n, groups};
    mixer_in.resize(panels_size<T>(m.d_model, n));
    logs.resize(int64_t(n) * m.n_heads);
    mixer_stats.resize(n);
  }
};

template <typename T>
struct Own {  // of one thread, for a block of tokens
  Rows<float> wide, also, narrow, scratch;
  // Operands of products, which are read beyond their width: each is used at one width alone, so that zeros stay
  // there whatever was computed before. A step that is not finite then leaves nothing behind.
  Rows<T> in, acted, d_logits, d_branch, d_up, d_gate, d_heads, d_groups;
  Stays stays;
  std::unique_ptr<Attention<T>> attention;

  Own(const TrainedModel& m, int block)
      : wide(block, std::max({m.d_ff, m.vocab, m.d_model})), also(m.gated ? block : 0, m.d_ff),
        narrow(block, m.d_model), scratch(4, std::max(m.d_model, m.d_head)), in(block, m.d_model),
        acted(block, m.d_ff), d_logits(block, m.vocab), d_branch(block, m.d_model), d_up(block, m.d_ff),
        d_gate(m.gated ? block : 0, m.d_ff), d_heads(block, m.n_heads * m.d_head),
        d_groups(block, m.n_groups * m.d_head), stays(block, m.d_model),
        attention(m.n_heads ? new Attention<T>(m) : nullptr) {}
};

template <typename T>
struct Memory {
  const int n, block, n_blocks;
  int64_t chunk;  // tokens whose logits have gradients at once
  std::vector<Held<T>> layers;
  std::vector<Panels<T>> panels;
  Panels<T> head;
  Rows<float> raw, last, dx, also_dx, d_q, d_k, d_v;
  Rows<T> d_mixed;
  Row<T> turned[kPlaces], x_out, x_down, turned_head, x_head;
  Floats losses, norm_sums[4], bias_sums[kPlaces];
  std::vector<Stats> final_stats, embed_stats;
  std::vector<std::unique_ptr<Own<T>>> own;

  // `m` must stay where it is.
  Memory(const TrainedModel& m, int n_threads)
      : n(m.n_rows * m.seq_len), block(n >= 1024 ? 128 : 64), n_blocks((n + block - 1) / block),
        panels(m.n_layers * kPlaces), raw(n, m.d_model), last(n, m.d_model), dx(n, m.d_model),
        also_dx(m.block == kParallel ? n : 0, m.d_model), losses(n), final_stats(n), embed_stats(n) {
    const bool before = m.block == kPre || m.block == kParallel;
    for (int l = 0; l < m.n_layers; ++l) {
      layers.emplace_back(m, m.layers[l], n, before);
      for (int place = 0; place < kPlaces; ++place)
        panels[l * kPlaces + place].make_room(linear_at(m.layers[l], place));
    }
    head.make_room(m.head);
    const int heads = m.n_heads * m.d_head, groups = m.n_groups * m.d_head;
    d_mixed = {n, heads};
    d_q = {n, heads};
    d_k = d_v = {n, groups};
    for (int place = 0; place < kPlaces; ++place) {
      const TrainedLinear& w = linear_at(m.layers[0], place);
      turned[place].resize(panels_size<T>(w.n_out, n));
      if (w.bias) bias_sums[place].resize(n_blocks * padded(w.n_out));
    }
    x_out.resize(panels_size<T>(heads, n));
    x_down.resize(panels_size<T>(m.d_ff, n));
    const int64_t n_chunks = (int64_t(n) * m.vocab + kChunkLogits - 1) / kChunkLogits;
    chunk = (n_blocks + n_chunks - 1) / n_chunks * block;
    turned_head.resize(panels_size<T>(m.vocab, chunk));
    x_head.resize(panels_size<T>(m.d_model, chunk));
    for (auto& sums : norm_sums) sums.resize(int64_t(n_blocks) * 2 * padded(std::max(m.d_model, m.d_head)));
    for (int i = 0; i < n_threads; ++i) own.emplace_back(new Own<T>(m, block));
  }
};

}  // namespace
}  // namespace assay
