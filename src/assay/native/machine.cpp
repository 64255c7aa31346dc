// What this library and this processor are: sizes of structs, widths of vectors, single products, reading.

#include <numeric>

#include "abi.h"
#include "product.h"
#include "team.h"

namespace assay {
namespace {

template <typename T>
void take_product(const ProductJob& job) {
  const int m = job.m, n = job.n, k = job.k;
  // Rows lie as far apart as a left operand's: filled up with zeros.
  const int64_t a_rows = job.a_transposed ? k : m, a_width = job.a_transposed ? m : k, stride = padded(a_width);
  std::vector<T, OnLines<T>> a((a_rows + kPad) * stride + kPad), panels_a(panels_size<T>(m + kPad, k)),
      panels_b(panels_size<T>(n, k));
  for (int64_t i = 0; i < a_rows; ++i)
    each(a_width, [&](int64_t j, int some) { put(&a[i * stride + j], take(job.a + i * a_width + j, some), some); });
  if (job.a_transposed) pack_turned(a.data(), stride, 0, k, m, panels_a.data(), k);
  if (job.b_in_rows)
    pack_rows(job.b, n, 0, k, n, panels_b.data(), panel_size<T>(k));
  else
    pack_columns(job.b, k, k, n, panels_b.data(), 0, (n + kPanel - 1) / kPanel);
  const Left<T> left = job.a_transposed ? Left<T>::turned(panels_a.data(), k) : Left<T>::rows(a.data(), stride);
  const Ready<T> ready;
  multiply(left, m, panels_b.data(), panel_size<T>(k), n, k, job.c, n, job.accumulate ? job.c : nullptr);
}

}  // namespace
}  // namespace assay

extern "C" {

// How many structs there are, then the size of each, in the order of abi.h.
extern const int32_t assay_struct_sizes[];
const int32_t assay_struct_sizes[] = {14,
                                      sizeof(Matrix),
                                      sizeof(Norm),
                                      sizeof(Layer),
                                      sizeof(Program),
                                      sizeof(Entries),
                                      sizeof(TrainedNorm),
                                      sizeof(TrainedLinear),
                                      sizeof(TrainedLayer),
                                      sizeof(TrainedModel),
                                      sizeof(TrainingJob),
                                      sizeof(MatrixOf),
                                      sizeof(GradientOf),
                                      sizeof(UpdateOf),
                                      sizeof(ProductJob)};

int32_t assay_product(const ProductJob* job) {
  return assay::guarded([&] {
    if (job->bf16)
      assay::take_product<assay::BF16>(*job);
    else
      assay::take_product<float>(*job);
  });
}

int32_t assay_lanes() { return assay::kLanes; }

// What products of bfloat16 are taken with: 0 nothing, 1 vectors, 2 tiles.
int32_t assay_bf16_products() {
#if defined(__AVX512BF16__)
  return assay::in_tiles<assay::BF16>() ? 2 : 1;
#else
  return 0;
#endif
}

// How many threads a team of `asked` really has.
int32_t assay_threads(int32_t asked, int32_t* found) {
  return assay::guarded([&] {
    assay::together(asked, [&](assay::Team team) {
      if (team.index == 0) *found = team.size;
    });
  });
}

// Numbers are read once and their sum returned, so that no compiler leaves the reading out.
int32_t assay_read(const float* from, int64_t count, int32_t n_threads, double* sum) {
  return assay::guarded([&] {
    std::vector<double> wholes(n_threads);
    assay::together(n_threads, [&](assay::Team team) {
      double whole = 0;
      team.share(count / 4096, [&](int i) {
        assay::Vec partial[8] = {};
        const float* block = from + int64_t(i) * 4096;
        for (int j = 0; j < 4096; j += 8 * assay::kLanes)
          for (int n = 0; n < 8; ++n) partial[n] += assay::load(block + j + n * assay::kLanes);
        for (int n = 0; n < 8; ++n) whole += assay::sum(partial[n]);
      });
      wholes[team.index] = whole;
    });
    *sum = std::accumulate(wholes.begin(), wholes.end(), 0.0);
  });
}
}
