// Weights rounded to int8.

#include "team.h"
#include "vector.h"

namespace assay {
namespace {

// The scale of a row is its largest magnitude over 127, 1 where that is zero. One below 2^-126 is
// coarse, and a number may be more than 127 of it: it becomes 127.
float round_row(const float* from, int count, int8_t* to) {
  Vec most = {};
  each(count, [&](int i, int n) {
    const Vec v = take(from + i, n), magnitude = v < 0.0f ? -v : v;
    most = magnitude > most ? magnitude : most;
  });
  const float step = largest(most) / 127.0f, scale = step > 0 ? step : 1.0f;
  each(count, [&](int i, int n) { put(to + i, take(from + i, n) / scale, n); });
  return scale;
}

}  // namespace
}  // namespace assay

extern "C" {

int32_t assay_pack(const float* from, int64_t n_out, int64_t n_in, int8_t* to, float* scales,
                   int32_t n_threads) {
  return assay::guarded([&] {
    assay::together(n_threads, [&](assay::Team team) {
      int first, last;
      assay::span(n_out, 1, team, first, last);
      for (int64_t row = first; row < last; ++row)
        scales[row] = assay::round_row(from + row * n_in, n_in, to + row * n_in);
    });
  });
}
}
