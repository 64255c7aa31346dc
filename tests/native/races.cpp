// A small model trained and read, and both optimizers, by several threads, through the C interface: for
// ThreadSanitizer (test_sanitizers.py). What is computed is not looked at, but for its being the same every time.

#include <cstdio>
#include <cstring>
#include <deque>
#include <vector>

#include "abi.h"

extern "C" {
int32_t assay_pass(const Program*, const Entries*);
int32_t assay_pack(const float*, int64_t, int64_t, int8_t*, float*, int32_t);
int32_t assay_read(const float*, int64_t, int32_t, double*);
int32_t assay_bf16_products();
int32_t assay_pass_new(const TrainedModel*, int32_t, int32_t, void**);
void assay_pass_free(void*);
int32_t assay_train(void*, TrainingJob*, int32_t);
int32_t assay_train_apart(void**, int32_t, TrainingJob*, int32_t);
int32_t assay_muon(const MatrixOf*, int32_t, float, int32_t, int32_t);
int32_t assay_norm(const GradientOf*, int32_t, int32_t, double*);
int32_t assay_adamw(const UpdateOf*, const GradientOf*, int32_t, float, int32_t);
}

namespace {

using namespace assay;

constexpr int kThreads = 3, kLayers = 2, kD = 36, kHeads = 4, kGroups = 2, kHead = 9, kF = 70, kVocab = 131;
constexpr int kRows = 4, kLength = 50;  // 200 tokens: four blocks

// Numbers that stay where they are.
class Numbers {
 public:
  float* some(int count, float scale = 0.2f) {
    held_.emplace_back(count);
    for (float& x : held_.back()) x = scale * (float((state_ = state_ * 1664525u + 1013904223u) >> 8) / (1 << 23) - 1.0f);
    return held_.back().data();
  }
  float* zeros(int count) { return held_.emplace_back(count).data(); }
  const std::deque<std::vector<float>>& all() const { return held_; }

 private:
  std::deque<std::vector<float>> held_;
  uint32_t state_ = 1;
};

void expect(bool right, const char* what) {
  if (!right) std::printf("%s\n", what);
}

// --- training

struct Model {
  Numbers weights, gradients;
  std::vector<TrainedLayer> layers{kLayers};
  TrainedModel whole{};
  std::vector<int32_t> tokens;

  TrainedNorm norm(int width) {
    return {weights.some(width), weights.some(width), gradients.zeros(width), gradients.zeros(width), 1e-5f, kLayerNorm};
  }
  TrainedLinear linear(int n_out, int n_in) {
    return {weights.some(n_out * n_in), weights.some(n_out), gradients.zeros(n_out * n_in), gradients.zeros(n_out), n_out, n_in};
  }

  explicit Model(int block) {
    for (TrainedLayer& l : layers)
      l = {norm(kD), norm(kD), norm(kHead), norm(kHead), linear(kHeads * kHead, kD), linear(kGroups * kHead, kD),
           linear(kGroups * kHead, kD), linear(kD, kHeads * kHead), linear(kF, kD), linear(kF, kD), linear(kD, kF)};
    whole.layers = layers.data();
    whole.embed_norm = norm(kD);
    whole.final_norm = norm(kD);
    whole.embed = weights.some(kVocab * kD);
    whole.d_embed = gradients.zeros(kVocab * kD);
    whole.head = {whole.embed, nullptr, whole.d_embed, nullptr, kVocab, kD};
    whole.added = weights.some(kLength * kD);
    whole.d_added = gradients.zeros(kLength * kD);
    whole.cos = weights.some(kLength * 3);
    whole.sin = weights.some(kLength * 3);
    whole.n_pairs = 3;
    whole.head_factor = 1.0f;
    whole.n_layers = kLayers, whole.d_model = kD, whole.n_heads = kHeads, whole.n_groups = kGroups;
    whole.d_head = kHead, whole.d_ff = kF, whole.vocab = kVocab, whole.window = 20;
    whole.block = block, whole.activation = kSiLU, whole.gated = whole.tied = 1;
    whole.n_rows = kRows, whole.seq_len = kLength;
    for (int i = 0; i < kRows * (kLength + 1); ++i) tokens.push_back(i * 37 % kVocab);
  }

  TrainingJob job(float dropout) {
    TrainingJob asked{};
    asked.model = &whole, asked.tokens = tokens.data(), asked.scale = 1.0f, asked.seed = 7;
    asked.dropout = asked.mixer_dropout = dropout;
    return asked;
  }
};

void train(int block, int bf16) {
  Model model(block);
  std::deque<std::vector<float>> first;
  for (int threads : {1, kThreads}) {  // a pass has memory for as many
    void* pass = nullptr;
    expect(assay_pass_new(&model.whole, bf16, threads, &pass) == 0, "a pass was not made");
    for (float dropout : {0.0f, 0.25f}) {
      TrainingJob job = model.job(dropout);
      expect(assay_train(pass, &job, threads) == 0, "a step failed");
    }
    std::vector<float> losses(kRows * kLength);
    TrainingJob judging = model.job(0);
    judging.losses = losses.data();
    expect(assay_train(pass, &judging, threads) == 0, "losses failed");
    assay_pass_free(pass);
    if (threads == 1)
      first = model.gradients.all();
    else
      expect(first == model.gradients.all(), "gradients depend on the number of threads");
  }
}

void train_apart(int bf16) {
  std::deque<Model> models;
  std::vector<TrainingJob> jobs;
  std::vector<void*> passes(kThreads);
  for (int i = 0; i < 5; ++i) jobs.push_back(models.emplace_back(kPre).job(0.25f));
  for (void*& pass : passes) expect(assay_pass_new(&models[0].whole, bf16, 1, &pass) == 0, "a pass was not made");
  expect(assay_train_apart(passes.data(), kThreads, jobs.data(), jobs.size()) == 0, "steps apart failed");
  for (void* pass : passes) assay_pass_free(pass);
  for (const TrainingJob& job : jobs) expect(job.loss == jobs[0].loss, "a loss depends on the thread");
}

// --- decoding

class Decoder {
 public:
  Decoder(int kind, int block) : kind_(kind) {
    for (Layer& l : layers_)
      l = {norm(kD), norm(kD), norm(kHead), norm(kHead), matrix(kHeads * kHead, kD), matrix(kGroups * kHead, kD),
           matrix(kGroups * kHead, kD), matrix(kD, kHeads * kHead), matrix(kF, kD), matrix(kF, kD), matrix(kD, kF),
           numbers_.zeros(2 * kGroups * kLength * kHead), numbers_.zeros(2 * kGroups * kLength * kHead)};
    whole_.layers = layers_.data();
    whole_.cos = numbers_.some(kLength * 3);
    whole_.sin = numbers_.some(kLength * 3);
    whole_.embed_norm = norm(kD);
    whole_.final_norm = norm(kD);
    whole_.head = matrix(kVocab, kD);
    whole_.head_factor = 1.0f, whole_.soft_cap = 5.0f;
    whole_.n_layers = kLayers, whole_.d_model = kD, whole_.n_heads = kHeads, whole_.n_groups = kGroups;
    whole_.d_head = kHead, whole_.d_ff = kF, whole_.room = kLength, whole_.n_pairs = 3;
    whole_.block = block, whole_.activation = kSiLU, whole_.gated = 1;
  }

  // The logits of two rows of `count` tokens each, read at once.
  std::vector<float> read(int count, int n_threads) {
    whole_.n_threads = n_threads;
    std::vector<int32_t> row, position, wanted;
    for (int i = 0; i < 2 * count; ++i) {
      row.push_back(i % 2);
      position.push_back(i / 2);
      wanted.push_back(i);
    }
    Numbers inputs;
    std::vector<float> logits(2 * count * kVocab);
    const Entries entries{row.data(), position.data(), inputs.some(2 * count * kD), wanted.data(), logits.data(),
                          2 * count, 2 * count};
    expect(assay_pass(&whole_, &entries) == 0, "decoding failed");
    return logits;
  }

 private:
  Norm norm(int width) { return {numbers_.some(width), nullptr, 1e-5f, kRMSNorm}; }

  Matrix matrix(int n_out, int n_in) {
    const float* wide = numbers_.some(n_out * n_in);
    float* scale = numbers_.zeros(n_out);
    std::vector<uint8_t>& raw = rounded_.emplace_back(2 * n_out * n_in);
    if (kind_ == kInt8)
      expect(assay_pack(wide, n_out, n_in, (int8_t*)raw.data(), scale, kThreads) == 0, "packing failed");
    if (kind_ == kBFloat16)
      for (int i = 0; i < n_out * n_in; ++i) std::memcpy(&raw[2 * i], (const char*)(wide + i) + 2, 2);
    return {kind_ == kFloat32 ? (const void*)wide : raw.data(), kind_ == kInt8 ? scale : nullptr,
            numbers_.some(n_out), n_out, n_in, kind_};
  }

  const int kind_;
  Numbers numbers_;
  std::deque<std::vector<uint8_t>> rounded_;
  std::vector<Layer> layers_{kLayers};
  Program whole_{};
};

void decode(int kind, int block) {
  Decoder decoder(kind, block);
  for (int count : {1, 17}) {
    const std::vector<float> alone = decoder.read(count, 1);
    for (int threads : {2, 4}) expect(decoder.read(count, threads) == alone, "logits depend on the number of threads");
  }
}

// --- optimizers

void optimize(int bf16) {
  Numbers numbers;
  std::vector<MatrixOf> matrices;
  for (const auto& [rows, columns] : {std::pair{37, 70}, {70, 37}, {33, 33}, {37, 70}, {5, 1}}) {
    const int count = rows * columns;
    matrices.push_back({numbers.some(count), numbers.some(count), numbers.some(count), rows, columns, 0.9f, 0.99f, 0.1f});
  }
  expect(assay_muon(matrices.data(), matrices.size(), 0.5f, bf16, kThreads) == 0, "Muon failed");
  std::vector<UpdateOf> updates;
  std::vector<GradientOf> gradients;
  for (int count : {1, 20000, 4100}) {
    updates.push_back({numbers.some(count), numbers.zeros(count), numbers.zeros(count), numbers.zeros(1), 0.1, 0.9, 0.99, 1e-8, 0.1});
    gradients.push_back({numbers.some(count), count});
  }
  double norm = 0, sum = 0;
  expect(assay_norm(gradients.data(), gradients.size(), kThreads, &norm) == 0 && norm > 0, "the norm failed");
  expect(assay_adamw(updates.data(), gradients.data(), updates.size(), 0.5f, kThreads) == 0, "AdamW failed");
  expect(assay_read(numbers.some(1 << 15), 1 << 15, kThreads, &sum) == 0, "reading failed");
}

}  // namespace

int main() {
  for (int bf16 = 0; bf16 <= (assay_bf16_products() > 0); ++bf16) {
    for (int block : {kPre, kPost, kParallel}) train(block, bf16);
    train_apart(bf16);
    optimize(bf16);
  }
  for (int kind : {kFloat32, kBFloat16, kInt8})
    for (int block : {kPre, kPost, kParallel}) decode(kind, block);
  std::printf("done\n");
}
