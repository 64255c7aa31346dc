// The plain C interface: every struct that Python fills in, as native/abi.py declares it once more. Their sizes
// are exported (machine.cpp) and compared there before anything is called.

#pragma once

#include <cstdint>

extern "C" {

// --- decoding: a GPT as it reads one, and what it is asked

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
  const int32_t* wanted;  // indices of the entries whose logits are wanted
  float* logits;
  int32_t count, n_wanted;
};

// --- training: a model with the places of its gradients, and a batch

struct TrainedNorm {
  const float *weight, *bias;  // or null
  float *d_weight, *d_bias;
  float eps;
  int32_t kind;
};

struct TrainedLinear {  // out = x W^T + bias
  const float *weight, *bias;
  float *d_weight, *d_bias;
  int32_t n_out, n_in;
};

struct TrainedLayer {
  TrainedNorm mixer_norm, mlp_norm, q_norm, k_norm;
  TrainedLinear q, k, v, out, gate, up, down;
};

struct TrainedModel {
  const TrainedLayer* layers;
  TrainedNorm embed_norm, final_norm;
  const float* embed;  // V x D
  float* d_embed;
  TrainedLinear head;   // the embedding again where they are tied
  const float* added;   // T x D, what positions add to embeddings; or null
  float* d_added;       // its gradient; null where it is no table
  const float *slopes;  // of each head; or null
  const float *cos, *sin;  // T x n_pairs; or null
  float head_factor, soft_cap;  // 0: no cap
  int32_t n_layers, d_model, n_heads, n_groups, d_head, d_ff, vocab;
  int32_t window, n_pairs;  // 0: no window; pairs of channels that turn
  int32_t block, activation, gated, tied;
  int32_t n_rows, seq_len;  // B sequences, T tokens of context
};

struct TrainingJob {
  const TrainedModel* model;
  const int32_t* tokens;  // B x (T + 1)
  float scale;            // of the gradient
  int32_t add;            // to the gradients that stand there
  double loss;            // mean over tokens, in nats; written
  float* losses;          // of each token, in nats; null where gradients are asked for instead
  uint64_t seed;          // of dropout
  float dropout, mixer_dropout;  // their probabilities, to 1 / 65536; those of a model that is judged are 0
};

// --- optimizers

struct MatrixOf {  // for Muon
  float *weight, *mean;  // the mean of its gradients
  const float* gradient;
  int32_t rows, columns;
  float momentum;  // decay of the mean
  float kept;      // of the weight
  float rate;      // of the orthogonal direction
};

struct GradientOf {
  const float* gradient;
  int64_t count;
};

struct UpdateOf {  // of one tensor, for AdamW
  float *weight, *mean, *square;  // the means of gradients and of their squares
  float* step;                    // taken so far
  double lr, beta1, beta2, eps, decay;
};

// --- one product, for the self-check

struct ProductJob {  // C (m x n) = or += A B
  const float *a;    // m x k; k x m if it is transposed
  const float *b;    // n x k; k x n if it comes in rows
  float* c;
  int32_t m, n, k;
  int32_t bf16, a_transposed, b_in_rows, accumulate;
};
}

namespace assay {

enum Kind { kFloat32, kBFloat16, kInt8 };
enum NormKind { kNoNorm, kLayerNorm, kSigmaNorm, kRMSNorm };
enum BlockKind { kPre, kPost, kParallel, kPlain };
enum Activation { kGELU, kGELUTanh, kReLU, kReLU2, kSiLU };

}  // namespace assay
