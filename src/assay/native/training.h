// What a training pass reads and writes, as native/abi.py declares it once more.

#pragma once

#include <cstdint>

extern "C" {

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
}

namespace assay {

enum NormKind { kNoNorm, kLayerNorm, kSigmaNorm, kRMSNorm };
enum BlockKind { kPre, kPost, kParallel, kPlain };
enum Activation { kGELU, kGELUTanh, kReLU, kReLU2, kSiLU };

}  // namespace assay
