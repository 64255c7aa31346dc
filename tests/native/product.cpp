// Products of all kinds of operands beside a loop over k, for test_product.py. Operands are small whole
// numbers, so sums are exact in any order. Prints each product that differs, then how many were taken.

#include <cstdio>

#include "product.h"

namespace {

using namespace assay;

inline BF16 narrow(float value, BF16) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return {uint16_t(bits >> 16)};  // exact: its upper half holds it
}
inline float narrow(float value, float) { return value; }

float number(int i, int j) { return float((i * 31 + j * 17 + i * j * 7) % 7 - 3); }

struct Case {
  int m, n, k;
  bool turned, rows, seeded;  // A turned over, B from rows, upon C
};

template <typename T>
bool right(const Case& one) {
  const auto [m, n, k, turned, rows, seeded] = one;
  const int64_t stride = padded(k), c_stride = padded(n) + 16;
  const int64_t m_stride = padded(m), n_stride = padded(n);
  typedef std::vector<T, OnLines<T>> Numbers;
  const T other = narrow(9.0f, T());  // stands beyond the ends of rows and columns
  Numbers plain((m + kPad) * (stride + kPad), other), across((k + kPad) * m_stride, other),
      b_columns((n + kPad) * (stride + kPad), other), b_rows((k + kPad) * n_stride, other);
  Numbers panels(panels_size<T>(m + kPad, k)), b(panels_size<T>(n, k));
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < k; ++j) plain[i * stride + j] = across[j * m_stride + i] = narrow(number(i, j), T());
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < k; ++j)
      b_columns[i * stride + j] = b_rows[j * n_stride + i] = narrow(number(i + 5, j), T());
  if (turned) pack_turned(across.data(), m_stride, 0, k, m, panels.data(), k);
  if (rows)
    pack_rows(b_rows.data(), n_stride, 0, k, n, b.data(), panel_size<T>(k));
  else
    pack_columns(b_columns.data(), stride, k, n, b.data(), 0, (n + kPanel - 1) / kPanel);
  Floats c(m * c_stride, 0.5f);
  const Left<T> a = turned ? Left<T>::turned(panels.data(), k) : Left<T>::rows(plain.data(), stride);
  const Ready<T> ready;
  multiply(a, m, b.data(), panel_size<T>(k), n, k, c.data(), c_stride, seeded ? c.data() : nullptr);
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < c_stride; ++j) {
      float sum = seeded || j >= n ? 0.5f : 0.0f;  // beyond the columns nothing is written
      for (int l = 0; j < n && l < k; ++l) sum += number(i, l) * number(j + 5, l);
      if (c[i * c_stride + j] != sum) return false;
    }
  return true;
}

template <typename T>
int all(const char* precision) {
  const int kSizes[][2] = {{16, 32}, {5, 1}, {37, 33}, {48, 70}, {33, 600}, {20, 1700}};
  int taken = 0;
  for (const auto& [n, k] : kSizes)
    for (int m = 1; m <= (k > 600 ? 3 : 1) * 45; m += k > 600 ? 43 : 1)
      for (int kind = 0; kind < 8; ++kind, ++taken) {
        const Case one{m, n, k, bool(kind & 1), bool(kind & 2), bool(kind & 4)};
        if (!right<T>(one))
          std::printf("%s %d x %d x %d, turned %d, B from rows %d, upon C %d\n", precision, m, n, k,
                      one.turned, one.rows, one.seeded);
      }
  return taken;
}

}  // namespace

int main() {
  int taken = all<float>("fp32");
#if defined(__AVX512BF16__)
  taken += all<assay::BF16>("bf16");
#endif
  std::printf("%d\n", taken);
}
