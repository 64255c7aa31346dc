// What happens to each token by itself in a training pass: norms, activations, rotations, the loss.

#pragma once

#include "abi.h"
#include "product.h"

namespace assay {
namespace {

// --- norms

struct Stats {  // of one token
  float mean, factor, bend;  // bend: how much the spread pulls on the gradient, 1 but for sigma
};

template <typename Out>
Stats normalise(const TrainedNorm& norm, const float* x, Out* out, int width) {
  Stats found{0.0f, 1.0f, 1.0f};
  if (norm.kind != kNoNorm) {
    const bool centre = norm.kind != kRMSNorm;
    const float mean = centre ? total(x, width, [](Vec v) { return v; }) / width : 0.0f;
    const float square = total(x, width, [mean](Vec v) { return (v - mean) * (v - mean); }) / width;
    const float sigma = std::sqrt(square);
    found = {mean, 1.0f / std::sqrt(square + norm.eps), 1.0f};
    if (norm.kind == kSigmaNorm) found = {mean, 1.0f / (sigma + norm.eps), (sigma + norm.eps) / sigma};
  }
  each(width, [&](int i, int n) {
    Vec y = (take(x + i, n) - found.mean) * found.factor;
    if (norm.weight) y *= take(norm.weight + i, n);
    if (norm.bias) y += take(norm.bias + i, n);
    put(out + i, y, n);
  });
  return found;
}

// dx += the gradient through a norm; adds to the sums of its weights' gradients.
inline void unnormalise(const TrainedNorm& norm, const float* x, const Stats& s, const float* dy,
                        float* dx, int width, float* d_weight, float* d_bias) {
  if (norm.kind == kNoNorm) {
    each(width, [&](int i, int n) { put(dx + i, take(dx + i, n) + take(dy + i, n), n); });
    return;
  }
  Vec whole = {}, along = {};
  each(width, [&](int i, int n) {
    const Vec d = take(dy + i, n);
    const Vec y = (take(x + i, n) - s.mean) * s.factor;
    const Vec g = norm.weight ? d * take(norm.weight + i, n) : d;
    whole += g;  // beyond the end d is 0
    along += g * y;
    if (norm.weight) put(d_weight + i, take(d_weight + i, n) + d * y, n);
    if (norm.bias) put(d_bias + i, take(d_bias + i, n) + d, n);
  });
  const float mean = norm.kind == kRMSNorm ? 0.0f : sum(whole) / width;
  const float pull = sum(along) / width * s.bend;
  each(width, [&](int i, int n) {
    const Vec d = take(dy + i, n);
    const Vec y = (take(x + i, n) - s.mean) * s.factor;
    const Vec g = norm.weight ? d * take(norm.weight + i, n) : d;
    put(dx + i, take(dx + i, n) + s.factor * (g - mean - y * pull), n);
  });
}

// --- activations

struct Bent {
  Vec value, slope;
};

// The normal distribution below -|x|, where `bell` is e^(-x²/2), to 8e-8: half of what is left of 1
// by the error function of |x| / √2, Abramowitz & Stegun 1964, 7.1.26, all factors halved.
inline Vec tail(Vec x, Vec bell) {
  const Vec size = x < Vec{} ? -x : x, t = inverse(fused(splat(0.23164189f), size, splat(1.0f)));
  Vec p = splat(0.5307027145f);
  for (float next : {-0.7265760135f, 0.7107068705f, -0.142248368f, 0.127414796f}) p = fused(p, t, splat(next));
  return p * t * bell;
}

inline Bent bend(int activation, Vec x) {
  const Vec zero = {}, one = splat(1.0f);
  switch (activation) {
    case kGELU: {
      const Vec bell = exp(-0.5f * x * x), q = tail(x, bell), below = x < zero ? q : 1.0f - q;
      return {x * below, fused(x * bell, splat(0.39894228f), below)};
    }
    case kGELUTanh: {
      const Vec square = x * x;
      const Vec s = inverse(1.0f + exp(-1.5957691216f * x * (1.0f + 0.044715f * square)));
      const Vec inner = 1.5957691216f * (1.0f + 0.134145f * square);
      return {x * s, s + x * s * (1.0f - s) * inner};
    }
    case kReLU: return {x < zero ? zero : x, x > zero ? one : zero};
    case kReLU2: return {x < zero ? zero : x * x, x > zero ? 2.0f * x : zero};
    default: {
      const Vec s = inverse(1.0f + exp(-x));
      return {x * s, s * (1.0f + x * (1.0f - s))};
    }
  }
}

// --- rotation

// Turns the first pairs of a head by the angles of its position, or back.
inline void turn(float* head, const float* cos, const float* sin, int n_pairs, bool back) {
  each(n_pairs, [&](int i, int n) {
    const Vec a = take(head + i, n), b = take(head + n_pairs + i, n);
    const Vec c = take(cos + i, n), s = back ? -take(sin + i, n) : take(sin + i, n);
    put(head + i, a * c - b * s, n);
    put(head + n_pairs + i, a * s + b * c, n);
  });
}

// --- the loss

// Replaces the products of a token's features by the gradient of its loss in them; returns the loss.
template <typename T>
float next_token_loss(float* logits, int vocab, int target, float factor, float cap, float scale,
                      T* gradient) {
  Vec peak = splat(-INFINITY);
  each(vocab, [&](int i, int n) {
    Vec z = take(logits + i, n) * factor;
    if (cap != 0.0f) z = cap - 2.0f * cap / (1.0f + exp(z * (2.0f / cap)));
    put(logits + i, z, n);
    if (n == kLanes) peak = z > peak ? z : peak;
  });
  float most = largest(peak);
  for (int i = vocab / kLanes * kLanes; i < vocab; ++i) most = logits[i] > most ? logits[i] : most;
  const float whole = total(logits, vocab, [most](Vec z) { return exp(z - most); });
  const float loss = std::log(whole) + most - logits[target];
  const float share = scale / whole;
  const float known = logits[target];
  each(vocab, [&](int i, int n) {
    const Vec z = take(logits + i, n);
    Vec d = exp(z - most) * share;
    if (cap != 0.0f) d *= 1.0f - z * z * (1.0f / (cap * cap));
    put(gradient + i, d * factor, n);
  });
  float d = (std::exp(known - most) / whole - 1.0f) * scale;
  if (cap != 0.0f) d *= 1.0f - known * known / (cap * cap);
  float at[kLanes] = {d * factor};
  store_some(gradient + target, load(at), 1);
  return loss;
}

// --- rows in the precision of products

template <typename From, typename To>
void cast_row(const From* from, To* to, int width) {
  each(width, [&](int i, int n) { put(to + i, take(from + i, n), n); });
}

template <typename From>
void add_row(float* to, const From* from, int width) {
  each(width, [&](int i, int n) { put(to + i, take(to + i, n) + take(from + i, n), n); });
}

}  // namespace
}  // namespace assay
