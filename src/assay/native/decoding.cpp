// One pass of a GPT over a few tokens, on a CPU, in float32 with weights in float32, bfloat16 or
// int8. Read through the plain C interface at the end.
//
// A pass takes E entries. An entry is one token of one row at one position, so that prompts of
// unequal length, single steps and drafts to be checked are all the same thing, and no padding
// exists. Every sum over channels or keys is taken in an order that depends on nothing but the
// entry itself: neither on the other entries nor on the number of threads.
//
// Vectors are the compiler's own (GCC and Clang), as wide as the processor's.

#include "decoding_attention.h"

namespace assay {
namespace {

struct Scratch {
  Floats normed, also, q, k, v, mixed, gate, up, scores;
  Operand in, mixed_in, up_in;  // what products read
  Scratch(const Program& p, int n)
      : normed(size(n, p.d_model)), also(size(n, p.d_model)), q(size(n, p.n_heads * p.d_head)),
        k(size(n, p.n_groups * p.d_head)), v(size(n, p.n_groups * p.d_head)),
        mixed(size(n, p.n_heads * p.d_head)), gate(p.gated ? size(n, p.d_ff) : 0),
        up(size(n, p.d_ff)), scores(size(p.n_threads, p.room)), in(n, p.d_model),
        mixed_in(n, p.n_heads * p.d_head), up_in(n, p.d_ff) {}
  static size_t size(int64_t count, int64_t width) { return count * width; }
};

void mix(const Program& p, const Layer& layer, const float* x, const Entries& in, bool add,
         Scratch& s, Team team) {
  prepare(layer.q, x, in.count, s.in, team);
  const auto project = [&](const Matrix& m, Floats& out) {
    share_rows(m.n_out, team, [&](Rows rows) { linear(m, x, s.in, in.count, out.data(), false, rows); });
  };
  project(layer.q, s.q);
  project(layer.k, s.k);
  project(layer.v, s.v);
  for (int i = team.index; i < in.count * p.n_heads; i += team.size)
    turn(p, layer.q_norm, &s.q[int64_t(i) * p.d_head], in.position[i / p.n_heads]);
  for (int i = team.index; i < in.count * p.n_groups; i += team.size) {
    const int e = i / p.n_groups, g = i % p.n_groups;
    float* key = &s.k[int64_t(i) * p.d_head];
    turn(p, layer.k_norm, key, in.position[e]);
    const int64_t slot = in.position[e] % p.room;
    const int64_t at = ((int64_t(in.row[e]) * p.n_groups + g) * p.room + slot) * p.d_head;
    std::memcpy(layer.keys + at, key, 4 * p.d_head);
    std::memcpy(layer.values + at, &s.v[int64_t(i) * p.d_head], 4 * p.d_head);
  }
  team.wait();
  team.share(in.count * p.n_heads, [&](int i) {
    const int64_t at = int64_t(i) * p.d_head;
    attend(p, layer, &s.q[at], in.row[i / p.n_heads], in.position[i / p.n_heads], i % p.n_heads,
           &s.scores[int64_t(team.index) * p.room], &s.mixed[at]);
  });
  prepare(layer.out, s.mixed.data(), in.count, s.mixed_in, team);
  share_rows(p.d_model, team, [&](Rows rows) {
    linear(layer.out, s.mixed.data(), s.mixed_in, in.count, in.x, add, rows);
  });
}

void feed_forward(const Program& p, const Layer& layer, const float* x, const Entries& in, bool add,
                  Scratch& s, Team team) {
  prepare(layer.up, x, in.count, s.in, team);
  share_rows(p.d_ff, team, [&](Rows rows) {
    linear(layer.up, x, s.in, in.count, s.up.data(), false, rows);
    if (p.gated) linear(layer.gate, x, s.in, in.count, s.gate.data(), false, rows);
    for (int e = 0; e < in.count; ++e) {
      float* up = &s.up[int64_t(e) * p.d_ff];
      float* bent = p.gated ? &s.gate[int64_t(e) * p.d_ff] : up;
      activate(p.activation, bent + rows.first, rows.last - rows.first);
      if (p.gated)
        for (int i = rows.first; i < rows.last; ++i) up[i] *= bent[i];
    }
  });
  prepare(layer.down, s.up.data(), in.count, s.up_in, team);
  share_rows(p.d_model, team, [&](Rows rows) {
    linear(layer.down, s.up.data(), s.up_in, in.count, in.x, add, rows);
  });
}

void block(const Program& p, const Layer& layer, const Entries& in, Scratch& s, Team team) {
  const bool before = p.block == kPre || p.block == kParallel, add = p.block != kPlain;
  float* x = in.x;
  const auto norm = [&](const Norm& n, float* out) {
    normalise_all(n, x, out, in, p.d_model, team);
    team.wait();
  };
  if (p.block == kParallel) norm(layer.mlp_norm, s.also.data());
  if (p.n_heads) {
    if (before) norm(layer.mixer_norm, s.normed.data());
    mix(p, layer, before ? s.normed.data() : x, in, add, s, team);
    if (!before) norm(layer.mixer_norm, x);
  }
  if (p.block == kPre) norm(layer.mlp_norm, s.normed.data());
  const float* from = p.block == kPre ? s.normed.data() : p.block == kParallel ? s.also.data() : x;
  feed_forward(p, layer, from, in, add, s, team);
  if (!before) norm(layer.mlp_norm, x);
}

void unembed(const Program& p, const Entries& in, Scratch& s, Team team) {
  for (int i = team.index; i < in.n_wanted; i += team.size) {
    float* feature = &s.normed[int64_t(i) * p.d_model];
    normalise(p.final_norm, in.x + int64_t(in.wanted[i]) * p.d_model, feature, p.d_model);
    for (int d = 0; d < p.d_model; ++d) feature[d] *= p.head_factor;
  }
  team.wait();
  prepare(p.head, s.normed.data(), in.n_wanted, s.in, team);
  const float cap = p.soft_cap;
  share_rows(p.head.n_out, team, [&](Rows rows) {
    linear(p.head, s.normed.data(), s.in, in.n_wanted, in.logits, false, rows);
    for (int i = 0; cap != 0.0f && i < in.n_wanted; ++i)
      map(in.logits + int64_t(i) * p.head.n_out + rows.first, rows.last - rows.first,
          [cap](Vec v) { return cap - 2.0f * cap / (1.0f + exp(v * (2.0f / cap))); });
  });
}

}  // namespace
}  // namespace assay

extern "C" {

int32_t assay_pass(const Program* program, const Entries* entries) {
  const Program& p = *program;
  return assay::guarded([&] {
    assay::Scratch scratch(p, entries->count);
    assay::together(p.n_threads, [&](assay::Team team) {
      const assay::Ready<assay::BF16> ready;
      assay::normalise_all(p.embed_norm, entries->x, entries->x, *entries, p.d_model, team);
      team.wait();
      for (int i = 0; i < p.n_layers; ++i) assay::block(p, p.layers[i], *entries, scratch, team);
      assay::unembed(p, *entries, scratch, team);
    });
  });
}
}
