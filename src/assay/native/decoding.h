// A GPT as decoding reads it, and what it is asked: the plain C interface.

#pragma once

#include <cstdint>

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

enum Kind { kFloat32, kBFloat16, kInt8 };
enum NormKind { kNoNorm, kLayerNorm, kSigmaNorm, kRMSNorm };
enum BlockKind { kPre, kPost, kParallel, kPlain };
enum Activation { kGELU, kGELUTanh, kReLU, kReLU2, kSiLU };

}  // namespace
}  // namespace assay
