// One pass of a GPT over a few tokens, on a CPU, in float32 with weights in float32, bfloat16 or
// int8. Read through the plain C interface at the end.
//
// A pass takes E entries. An entry is one token of one row at one position, so that prompts of
// unequal length, single steps and drafts to be checked are all the same thing, and no padding
// exists. Every sum over channels or keys is taken in an order that depends on nothing but the
// entry itself: neither on the other entries nor on the number of threads.
//
// Vectors are the compiler's own (GCC and Clang), as wide as the processor's.

#include "dots.h"

extern "C" {

struct Matrix {  // out = x W^T * scale + bias
  const void* weight;
  const float* scale;  // of each output, for int8
  const float* bias;   // or null
  int32_t n_out, n_in, kind;
};

struct Norm {
  const float *weight, *bias;  // or null
  float eps;
  int32_t kind;
};

struct Layer {
  Norm mixer_norm, mlp_norm, q_norm, k_norm;
  Matrix q, k, v, out, gate, up, down;
  float *keys, *values;  // of each row, group and slot
};

struct Program {
  const Layer* layers;
  const float *slopes, *cos, *sin;  // or null; angles of each position
  Norm embed_norm, final_norm;
  Matrix head;
  float head_factor, soft_cap;  // 0: no cap
  int32_t n_layers, d_model, n_heads, n_groups, d_head, d_ff;
  int32_t window, room, n_pairs;  // 0: no window; slots of a row; pairs of channels that turn
  int32_t block, activation, gated, n_threads;
};

struct Entries {
  const int32_t *row, *position;
  float* x;               // E x d_model: embeddings; overwritten
  const int32_t* wanted;  // entries whose logits are
  float* logits;
  int32_t count, n_wanted;
};
}

namespace assay {
namespace {

// Rows that are taken with so many entries; how many entries are best taken together.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRowsOf[] = {0, 8, 8, 6, 6}, kBestEntries = 4;  // of 32 registers 24 hold sums
#else
constexpr int kRowsOf[] = {0, 8, 4, 4, 2}, kBestEntries = 3;  // 12 of 16
#endif
constexpr int kMostEntries = 4, kFewEntries = 16;

enum Kind { kFloat32, kBFloat16, kInt8 };
enum NormKind { kNoNorm, kLayerNorm, kSigmaNorm, kRMSNorm };
enum BlockKind { kPre, kPost, kParallel, kPlain };
enum Activation { kGELU, kGELUTanh, kReLU, kReLU2, kSiLU };

// --- products

// With `Ahead` the weights come from memory: their rows are too short for the processor to see a
// stream in each, so those of the next tile are asked for.
template <int R, int E, bool Ahead, typename T>
void tile(const T* weight, const float* x, int64_t n_in, const Target& to, int row, int entry) {
  Vec sums[R][E] = {};
  const auto add = [&](auto at) {
    Vec xs[E];
#pragma GCC unroll 8
    for (int e = 0; e < E; ++e) xs[e] = held(at(x + e * n_in));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec w = held(at(weight + r * n_in));
#pragma GCC unroll 8
      for (int e = 0; e < E; ++e) sums[r][e] = fused(w, xs[e], sums[r][e]);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n_in; i += kLanes) {
    if (Ahead)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) __builtin_prefetch(weight + (R + r) * n_in + i);
    add([i](auto from) { return load(from + i); });
  }
  if (const int rest = n_in - i; rest > 0)
    add([i, rest](auto from) { return load_some(from + i, rest); });
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int e = 0; e < E; ++e) to.put(row + r, entry + e, sum(sums[r][e]));
}

template <int E, bool Ahead, typename T>
void rows_of(const T* weight, const float* x, int64_t n_in, const Target& to, int first, int last,
             int entry) {
  constexpr int R = kRowsOf[E];
  int row = first;
  for (; row + R <= last; row += R)
    tile<R, E, Ahead>(weight + (row - first) * n_in, x, n_in, to, row, entry);
  for (; row < last; ++row) tile<1, E, Ahead>(weight + (row - first) * n_in, x, n_in, to, row, entry);
}

template <bool Ahead, typename T>
void some_entries(const T* weight, const float* x, int count, int64_t n_in, const Target& to,
                  int first, int last, int entry) {
  switch (count) {
    case 1: return rows_of<1, Ahead>(weight, x, n_in, to, first, last, entry);
    case 2: return rows_of<2, Ahead>(weight, x, n_in, to, first, last, entry);
    case 3: return rows_of<3, Ahead>(weight, x, n_in, to, first, last, entry);
    default: return rows_of<4, Ahead>(weight, x, n_in, to, first, last, entry);
  }
}

// `weight` begins at row `first`; only the first entries meet it fresh from memory. Four entries are
// taken together where three at a time would leave some over.
template <typename T>
void all_entries(const T* weight, const float* x, int count, int64_t n_in, const Target& to,
                 int first, int last, bool ahead) {
  for (int e = 0, n; e < count; e += n) {
    const int left = count - e;
    n = left % kBestEntries ? std::min(left, kMostEntries) : kBestEntries;
    const float* from = x + e * n_in;
    if (ahead && e == 0)
      some_entries<true>(weight, from, n, n_in, to, first, last, e);
    else
      some_entries<false>(weight, from, n, n_in, to, first, last, e);
  }
}

// Weights go through the cache in strips, each of which meets all entries; with many entries a
// strip is widened to float32 once.
template <typename T>
void strips(const Matrix& m, const float* x, int count, const Target& to, int first, int last) {
  const int64_t n_in = m.n_in;
  const T* weight = static_cast<const T*>(m.weight);
  const bool widen = sizeof(T) < 4 && count > 2 * kMostEntries;
  const int strip = count <= kMostEntries ? last - first : kRowsOf[kBestEntries];
  Floats wide(widen ? strip * n_in : 0);
  for (int row = first; row < last; row += strip) {
    const int end = row + strip < last ? row + strip : last;
    const T* from = weight + row * n_in;
    if (!widen) {
      all_entries(from, x, count, n_in, to, row, end, count <= kFewEntries);
      continue;
    }
    const int64_t size = (end - row) * n_in;
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      __builtin_prefetch(from + i + size);
      store(&wide[i], load(from + i));
    }
    if (i < size) store_some(&wide[i], load_some(from + i, size - i), size - i);
    all_entries(wide.data(), x, count, n_in, to, row, end, false);
  }
}

// Gets entries ready for products with weights like `m`; after it threads meet.
void prepare(const Matrix& m, const float* x, int count, Operand& operand, Team team) {
#ifdef ASSAY_DOTS
  if (m.kind == kFloat32) return;
  operand.take_in(x, count, m.kind == kInt8, team);
  team.wait();
#endif
}

struct Rows {  // of outputs
  int first, last;
};

// f(rows) for pieces of so many outputs; returns when all are done.
template <typename F>
void share_rows(int n_out, Team team, F f) {
  const int tall = std::max(32, n_out / (8 * team.size) / 32 * 32);
  team.share((n_out + tall - 1) / tall, [&](int i) { f(Rows{i * tall, std::min(n_out, (i + 1) * tall)}); });
}

// Some rows of the outputs.
void linear(const Matrix& m, const float* x, const Operand& operand, int count, float* out, bool add, Rows rows) {
  const auto [first, last] = rows;
  const Target to{out, m.n_out, add, m.scale, m.bias};
#ifdef ASSAY_DOTS
  switch (m.kind) {
    case kBFloat16: return dot_products((const BF16*)m.weight, m.n_out, m.n_in, operand, count, to, first, last);
    case kInt8: return dot_products((const int8_t*)m.weight, m.n_out, m.n_in, operand, count, to, first, last);
  }
#endif
  switch (m.kind) {
    case kFloat32: return strips<float>(m, x, count, to, first, last);
    case kBFloat16: return strips<BF16>(m, x, count, to, first, last);
    case kInt8: return strips<int8_t>(m, x, count, to, first, last);
  }
}

// --- norms and activations

void normalise(const Norm& norm, const float* x, float* out, int width) {
  if (norm.kind == kNoNorm) {
    if (out != x) std::memcpy(out, x, 4 * width);
    return;
  }
  const bool centre = norm.kind != kRMSNorm;
  const float mean = centre ? total(x, width, [](Vec v) { return v; }) / width : 0.0f;
  const float square =
      total(x, width, [mean](Vec v) { return (v - mean) * (v - mean); }) / width;
  const float factor = norm.kind == kSigmaNorm ? 1.0f / (std::sqrt(square) + norm.eps)
                                               : 1.0f / std::sqrt(square + norm.eps);
  for (int i = 0; i < width; ++i) {
    float y = (x[i] - mean) * factor;
    if (norm.weight) y *= norm.weight[i];
    out[i] = norm.bias ? y + norm.bias[i] : y;
  }
}

void normalise_all(const Norm& norm, const float* x, float* out, const Entries& in, int width,
                   Team team) {
  for (int e = team.index; e < in.count; e += team.size)
    normalise(norm, x + int64_t(e) * width, out + int64_t(e) * width, width);
}

void activate(int activation, float* x, int count) {
  switch (activation) {
    case kGELU:
      for (int i = 0; i < count; ++i) x[i] *= 0.5f * (1.0f + std::erf(x[i] * 0.70710678f));
      return;
    case kGELUTanh:
      return map(x, count, [](Vec v) {
        Vec u = 1.5957691216f * (v + 0.044715f * v * v * v);  // twice the argument of tanh
        return v / (1.0f + exp(-u));
      });
    case kReLU:  // a NaN passes
      return map(x, count, [](Vec v) { return v < 0.0f ? splat(0.0f) : v; });
    case kReLU2: return map(x, count, [](Vec v) { return v < 0.0f ? splat(0.0f) : v * v; });
    case kSiLU: return map(x, count, [](Vec v) { return v / (1.0f + exp(-v)); });
  }
}

// --- attention

void turn(const Program& p, const Norm& norm, float* head, int position) {
  normalise(norm, head, head, p.d_head);
  const int half = p.n_pairs;
  const float* cos = p.cos + int64_t(position) * half;
  const float* sin = p.sin + int64_t(position) * half;
  for (int i = 0; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cos[i] - b * sin[i];
    head[half + i] = a * sin[i] + b * cos[i];
  }
}

template <int N>
void weighted(const float* weights, const float* values, int count, int d_head, float* out) {
  Vec sums[N] = {};
  for (int j = 0; j < count; ++j)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
      sums[n] = fused(splat(weights[j]), load(values + int64_t(j) * d_head + n * kLanes), sums[n]);
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) store(out + n * kLanes, load(out + n * kLanes) + sums[n]);
}

void add_weighted(const float* weights, const float* values, int count, int d_head, float* out) {
  int d = 0;
  for (; d + 4 * kLanes <= d_head; d += 4 * kLanes)
    weighted<4>(weights, values + d, count, d_head, out + d);
  for (; d + kLanes <= d_head; d += kLanes)
    weighted<1>(weights, values + d, count, d_head, out + d);
  if (d == d_head) return;
  Vec rest = load_some(out + d, d_head - d);
  for (int j = 0; j < count; ++j)
    rest = fused(splat(weights[j]), load_some(values + int64_t(j) * d_head + d, d_head - d), rest);
  store_some(out + d, rest, d_head - d);
}

struct Seen {  // the keys one query sees: a run of slots, and a second where the ring wraps
  int first_slot, in_first, count;
};

Seen seen_from(const Program& p, int position) {
  const int oldest = p.window && position >= p.window ? position - p.window + 1 : 0;
  const int slot = oldest % p.room, count = position - oldest + 1;
  return {slot, count < p.room - slot ? count : p.room - slot, count};
}

void score(const Program& p, const float* query, const float* keys, int count, float* scores) {
  const float scale = 1.0f / std::sqrt(float(p.d_head));
  const Target to{scores, 0, false, nullptr, nullptr};
  rows_of<1, false>(keys, query, p.d_head, to, 0, count, 0);
  for (int j = 0; j < count; ++j) scores[j] *= scale;
}

void attend(const Program& p, const Layer& layer, const float* query, int row, int position, int head,
            float* scores, float* out) {
  const int group = head / (p.n_heads / p.n_groups);
  const int64_t base = (int64_t(row) * p.n_groups + group) * p.room * p.d_head;
  const float *keys = layer.keys + base, *values = layer.values + base;
  const Seen seen = seen_from(p, position);
  const int64_t skip = int64_t(seen.first_slot) * p.d_head;
  score(p, query, keys + skip, seen.in_first, scores);
  score(p, query, keys, seen.count - seen.in_first, scores + seen.in_first);
  if (p.slopes)
    for (int j = 0; j < seen.count; ++j) scores[j] -= p.slopes[head] * (seen.count - 1 - j);
  float most = scores[0];
  for (int j = 1; j < seen.count; ++j) most = scores[j] > most ? scores[j] : most;
  map(scores, seen.count, [most](Vec v) { return exp(v - most); });
  const float whole = total(scores, seen.count, [](Vec v) { return v; });
  std::memset(out, 0, 4 * p.d_head);
  add_weighted(scores, values + skip, seen.in_first, p.d_head, out);
  add_weighted(scores + seen.in_first, values, seen.count - seen.in_first, p.d_head, out);
  for (int d = 0; d < p.d_head; ++d) out[d] /= whole;
}

// --- the pass

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

using namespace assay;

extern "C" {

void assay_pass(const Program* program, const Entries* entries) {
  const Program& p = *program;
  Scratch scratch(p, entries->count);
  together(p.n_threads, [&](Team team) {
    const Ready<BF16> ready;
    normalise_all(p.embed_norm, entries->x, entries->x, *entries, p.d_model, team);
    team.wait();
    for (int i = 0; i < p.n_layers; ++i) block(p, p.layers[i], *entries, scratch, team);
    unembed(p, *entries, scratch, team);
  });
}

// Bytes are read once and their sum returned, so that no compiler leaves the reading out.
double assay_read(const float* from, int64_t count, int32_t n_threads) {
  double whole = 0;
#pragma omp parallel for num_threads(n_threads) reduction(+ : whole) schedule(static)
  for (int64_t i = 0; i < count / 4096; ++i) {
    Vec partial[8] = {};
    const float* block = from + i * 4096;
    for (int64_t j = 0; j < 4096; j += 8 * kLanes)
      for (int n = 0; n < 8; ++n) partial[n] += load(block + j + n * kLanes);
    for (int n = 0; n < 8; ++n) whole += sum(partial[n]);
  }
  return whole;
}

// Rows of int8 and the scale of each: its largest magnitude over 127, 1 where that is zero.
void assay_pack(const float* from, int64_t n_out, int64_t n_in, int8_t* to, float* scales,
                int32_t n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
  for (int64_t row = 0; row < n_out; ++row) {
    const float* values = from + row * n_in;
    Vec most = {};
    int64_t i = 0;
    auto widen = [&most](Vec v) {
      Vec magnitude = v < 0.0f ? -v : v;
      most = magnitude > most ? magnitude : most;
    };
    for (; i + kLanes <= n_in; i += kLanes) widen(load(values + i));
    if (i < n_in) widen(load_some(values + i, n_in - i));
    float largest = 0;
    for (int lane = 0; lane < kLanes; ++lane) largest = most[lane] > largest ? most[lane] : largest;
    const float step = largest / 127.0f;
    const float scale = step > 0 ? step : 1.0f;
    scales[row] = scale;
    // To the nearest, halves to the even one. A scale below 2^-126 is coarse, and a number may be more
    // than 127 of it.
    auto round = [scale](Vec v) {
      const Vec whole = between(-127.0f, v / scale + 12582912.0f - 12582912.0f, 127.0f);
      return __builtin_convertvector(__builtin_convertvector(whole, Ints), Bytes);
    };
    int8_t* out = to + row * n_in;
    for (i = 0; i + kLanes <= n_in; i += kLanes) {
      Bytes bytes = round(load(values + i));
      std::memcpy(out + i, &bytes, sizeof bytes);
    }
    if (i < n_in) {
      Bytes bytes = round(load_some(values + i, n_in - i));
      std::memcpy(out + i, &bytes, n_in - i);
    }
  }
}

int32_t assay_lanes() { return kLanes; }

// How many threads a team of `asked` really has: 1 where OpenMP is absent.
int32_t assay_threads(int32_t asked) {
  int32_t found = 1;
#pragma omp parallel num_threads(asked)
  {
#ifdef _OPENMP
#pragma omp single
    found = omp_get_num_threads();
#endif
  }
  return found;
}
}
