// One training pass of a GPT on a CPU: the mean loss of a batch and its gradient in every parameter.
//
// Products take operands in float32 or bfloat16 and are summed in float32; everything between them
// is float32. A token's row goes through all that concerns it alone in one go, a block of tokens at
// a time, so that it stays in the cache; threads meet only where tokens do, in attention and in the
// gradients of weights. Every sum is taken in an order that depends on the shapes alone: not on the
// number of threads, nor on what other models are trained beside this one.
//
// Formulas are those of nn/reference.py; backward they are its derivatives.

#include "training_backward.h"

namespace assay {
namespace {

struct AnyPass {
  virtual ~AnyPass() = default;
  virtual void run(TrainingJob& job, Team team) = 0;
};

template <typename T>
class Pass final : public AnyPass {
 public:
  Pass(const TrainedModel& model, int n_threads) : work_(model, n_threads) {}

  void run(TrainingJob& job, Team team) override {
    const Ready<T> ready;
    if (team.index == 0) work_.take(*job.model, job);
    team.wait();
    work_.forward(team);
    if (job.losses) return work_.judge(team);
    const double loss = work_.backward(team);
    if (team.index == 0) job.loss = loss;
  }

 private:
  Backward<T> work_;
};

}  // namespace
}  // namespace assay

extern "C" {

int32_t assay_pass_new(const TrainedModel* model, int32_t bf16, int32_t n_threads, void** made) {
  return assay::guarded([&] {
    assay::AnyPass* pass = nullptr;
    if (bf16)
      pass = new assay::Pass<assay::BF16>(*model, n_threads);
    else
      pass = new assay::Pass<float>(*model, n_threads);
    *made = pass;
  });
}

void assay_pass_free(void* pass) { delete static_cast<assay::AnyPass*>(pass); }

// One job by all threads.
int32_t assay_train(void* pass, TrainingJob* job, int32_t n_threads) {
  return assay::guarded([&] {
    assay::together(n_threads, [&](assay::Team team) {
      static_cast<assay::AnyPass*>(pass)->run(*job, team);
    });
  });
}

// Each job by one thread, as many at a time as there are passes.
int32_t assay_train_apart(void** passes, int32_t n_passes, TrainingJob* jobs, int32_t n_jobs) {
  return assay::guarded([&] {
    assay::together(n_passes, [&](assay::Team team) {
      team.share(n_jobs, [&](int i) {
        static_cast<assay::AnyPass*>(passes[team.index])->run(jobs[i], {0, 1, nullptr});
      });
    });
  });
}
}
