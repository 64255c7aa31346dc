// What this processor is, and how fast it reads.

#include <numeric>

#include "packing.h"
#include "team.h"

extern "C" {

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
int32_t assay_threads(int32_t asked) {
  int32_t found = 1;
  assay::together(asked, [&](assay::Team team) {
    if (team.index == 0) found = team.size;
  });
  return found;
}

// Numbers are read once and their sum returned, so that no compiler leaves the reading out.
double assay_read(const float* from, int64_t count, int32_t n_threads) {
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
  return std::accumulate(wholes.begin(), wholes.end(), 0.0);
}
}
