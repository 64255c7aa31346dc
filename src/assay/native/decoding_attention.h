// What concerns an entry alone: norms and activations; and attention, in which it meets the keys and
// values before it.

#pragma once

#include "decoding_products.h"

namespace assay {
namespace {

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

}  // namespace
}  // namespace assay
