// Rates of the kernels' own products on one thread, for benchmarks/products.py, which compiles this
// with a target's flags. Operands are 0: times depend on no value. One line of JSON a product.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "product.h"

namespace {

struct Shape {
  int m, n, k;
  bool turned;  // A is the transpose of rows at hand, as it is for the gradient of a weight
};

// Of cpu, tiny and small: a layer's weights, MLP, gradients of weights, attention, and GPT-2's head.
const Shape kShapes[] = {
    {64, 128, 128, false},  {64, 512, 128, false},  {64, 128, 512, false},  {64, 128, 768, true},
    {128, 384, 384, false}, {128, 1536, 384, false}, {128, 384, 1536, false}, {192, 384, 3072, true},
    {128, 768, 768, false}, {128, 3072, 768, false}, {128, 768, 3072, false}, {256, 768, 1024, true},
    {32, 256, 64, false},   {32, 64, 256, false},    {128, 50257, 768, false},
};

template <typename T>
void measure(const Shape& s, const char* precision, double seconds) {
  using namespace assay;
  typedef std::chrono::steady_clock Clock;
  const int64_t stride = padded(s.k), c_stride = padded(s.n);
  std::vector<T, OnLines<T>> a(panels_size<T>(s.m + kPad, s.k) + kPad), b(panels_size<T>(s.n, s.k));
  Floats c((s.m + kPad) * c_stride);
  const Left<T> left = s.turned ? Left<T>::turned(a.data(), s.k) : Left<T>::rows(a.data(), stride);
  const Ready<T> ready;
  std::vector<double> rates;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end || rates.size() < 3) {
    const auto began = Clock::now();
    multiply(left, s.m, b.data(), panel_size<T>(s.k), s.n, s.k, c.data(), c_stride, nullptr);
    const std::chrono::duration<double> took = Clock::now() - began;
    rates.push_back(2e-9 * s.m * s.n * s.k / took.count());
  }
  std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
  std::printf("{\"precision\": \"%s\", \"m\": %d, \"n\": %d, \"k\": %d, \"turned\": %s, \"gflops\": %.2f}\n", precision,
              s.m, s.n, s.k, s.turned ? "true" : "false", rates[rates.size() / 2]);
}

}  // namespace

int main(int, char** arguments) {
  const double seconds = std::atof(arguments[1]);
  for (const Shape& s : kShapes) measure<float>(s, "fp32", seconds);
#if defined(__AVX512BF16__)
  for (const Shape& s : kShapes) measure<assay::BF16>(s, "bf16", seconds);
#endif
}
