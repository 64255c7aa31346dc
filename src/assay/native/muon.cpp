// Muon with products of bfloat16, a matrix to a thread: see train/muon.py.
//
// A direction is made orthogonal by five times X <- aX + (bG + cG^2) X with G = X X^T, from X of
// Frobenius norm 1. X and G are rounded to bfloat16 wherever they stand, not in products alone: an
// error of X that all terms share shrinks by the next iteration, one that only some have does not. A
// matrix's bits depend on itself alone.

#include <map>

#include "product.h"
#include "team.h"

extern "C" {

struct MatrixOf {
  float *weight, *mean;  // the mean of its gradients
  const float* gradient;
  int32_t rows, columns;
  float momentum;  // decay of the mean
  float kept;      // of the weight
  float rate;      // of the orthogonal direction
};
}

namespace assay {
namespace {

constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f, kLeastNorm = 1e-7f;

// to[j][i] = from[i][j]
void turn_over(const float* from, int64_t from_stride, int rows, int columns, float* to, int64_t stride) {
  for (int i = 0; i < rows; i += 16)
    for (int j = 0; j < columns; j += 16) {
      Units block[16] = {}, turned[16];
      const int n = rows - i < 16 ? rows - i : 16, m = columns - j < 16 ? columns - j : 16;
      for (int r = 0; r < n; ++r) block[r] = words(from + (i + r) * from_stride + j, m, 0.0f);
      transpose(block, sizeof(Units), turned);
      for (int c = 0; c < m; ++c) std::memcpy(to + int64_t(j + c) * stride + i, &turned[c], 4 * n);
    }
}

class Orthogonal {
 public:
  Orthogonal(int rows, int columns)
      : rows_(rows), columns_(columns), s_(rows < columns ? rows : columns),
        b_(rows < columns ? columns : rows), x_stride_(padded(b_)), g_stride_(padded(s_)),
        x_(s_ * x_stride_), packed_(rows > columns ? s_ * x_stride_ : 0), gram_(s_ * g_stride_), square_(s_ * g_stride_),
        x_rows_((s_ + kPad) * x_stride_ + kPad), g_rows_((s_ + kPad) * g_stride_ + kPad),
        as_columns_(panels_size<BF16>(s_, b_)), as_rows_(panels_size<BF16>(b_, s_)),
        g_panels_(panels_size<BF16>(s_, s_)) {}

  void run(float* matrix) {
    read(matrix);
    for (int i = 0; i < 5; ++i) iterate();
    write(matrix);
  }

 private:
  typedef std::vector<BF16, OnLines<BF16>> Row;

  void read(const float* matrix) {
    if (rows_ > columns_)
      turn_over(matrix, columns_, rows_, columns_, x_.data(), x_stride_);
    else
      for (int i = 0; i < s_; ++i) std::memcpy(&x_[i * x_stride_], matrix + int64_t(i) * b_, 4 * b_);
    double squares = 0;
    for (int i = 0; i < s_; ++i) squares += total(&x_[i * x_stride_], b_, [](Vec v) { return v * v; });
    float norm = std::sqrt(squares);
    norm = norm < kLeastNorm ? kLeastNorm : norm;
    for (int i = 0; i < s_; ++i) map(&x_[i * x_stride_], b_, [norm](Vec v) { return v / norm; });
  }

  void write(float* matrix) {
    float* rows = rows_ > columns_ ? packed_.data() : matrix;
    for (int i = 0; i < s_; ++i) std::memcpy(rows + int64_t(i) * b_, &x_[i * x_stride_], 4 * b_);
    if (rows_ > columns_) turn_over(rows, b_, s_, b_, matrix, s_);
  }

  // Rounds rows; `rows` takes them in bfloat16, and they stay where they are.
  void round_rows(Floats& wide, int64_t stride, int width, Row& rows) {
    for (int i = 0; i < s_; ++i)
      each(width, [&](int j, int n) {
        const int64_t at = i * stride + j;
        put(&rows[at], take(&wide[at], n), n);
        put(&wide[at], take(&rows[at], n), n);
      });
  }

  // to = rows B, which is symmetric to the bit, of depth k: half of it is found, half is copied.
  void symmetric(const Row& rows, int64_t stride, const Row& b, int k, Floats& to) {
    const int64_t panel = panel_size<BF16>(k);
    for (int i = 0; i < s_; i += kPad) {
      const int end = i + kPad, count = s_ < end ? s_ - i : kPad;
      float* at = &to[i * g_stride_ + i];
      multiply(Left<BF16>::rows(&rows[i * stride], stride), count, &b[i / kPanel * panel], panel, s_ - i, k, at,
               g_stride_, nullptr);
      if (end < s_) turn_over(at + kPad, g_stride_, count, s_ - end, &to[end * g_stride_ + i], g_stride_);
    }
  }

  void iterate() {
    const int64_t short_panel = panel_size<BF16>(s_);
    round_rows(x_, x_stride_, b_, x_rows_);
    pack_columns(x_rows_.data(), x_stride_, b_, s_, as_columns_.data(), 0, (s_ + kPanel - 1) / kPanel);
    symmetric(x_rows_, x_stride_, as_columns_, b_, gram_);
    round_rows(gram_, g_stride_, s_, g_rows_);
    pack_rows(g_rows_.data(), g_stride_, 0, s_, s_, g_panels_.data(), short_panel);
    symmetric(g_rows_, g_stride_, g_panels_, s_, square_);
    for (int i = 0; i < s_; ++i)
      each(s_, [&](int j, int n) {
        float* square = &square_[i * g_stride_ + j];
        put(square, kB * take(&gram_[i * g_stride_ + j], n) + kC * take(square, n), n);
      });
    round_rows(square_, g_stride_, s_, g_rows_);
    pack_rows(x_rows_.data(), x_stride_, 0, s_, b_, as_rows_.data(), short_panel);
    for (int i = 0; i < s_; ++i) map(&x_[i * x_stride_], b_, [](Vec v) { return kA * v; });
    multiply(Left<BF16>::rows(g_rows_.data(), g_stride_), s_, as_rows_.data(), short_panel, b_, s_,
             x_.data(), x_stride_, x_.data());
  }

  const int rows_, columns_, s_, b_;
  const int64_t x_stride_, g_stride_;
  Floats x_, packed_, gram_, square_;
  Row x_rows_, g_rows_, as_columns_, as_rows_, g_panels_;
};

// Takes the gradient, times `scale`, into the mean; returns Nesterov's direction in `to`.
void lean(const MatrixOf& m, float scale, float* to) {
  each(m.rows * m.columns, [&](int i, int n) {
    const Vec g = take(m.gradient + i, n) * scale, mean = take(m.mean + i, n);
    const Vec now = mean + (1.0f - m.momentum) * (g - mean);
    put(m.mean + i, now, n);
    put(to + i, g + m.momentum * (now - g), n);
  });
}

void follow(const MatrixOf& m, const float* direction) {
  each(m.rows * m.columns, [&](int i, int n) {
    put(m.weight + i, m.kept * take(m.weight + i, n) - m.rate * take(direction + i, n), n);
  });
}

}  // namespace
}  // namespace assay

extern "C" {

// One step of each of `count` matrices, by gradients times `scale`.
void assay_muon(const MatrixOf* matrices, int32_t count, float scale, int32_t n_threads) {
  assay::together(n_threads < count ? n_threads : count, [&](assay::Team team) {
    const assay::Ready<assay::BF16> ready;
    std::map<std::pair<int, int>, assay::Orthogonal> memory;
    assay::Floats direction;
    team.share(count, [&](int i) {
      const MatrixOf& m = matrices[i];
      direction.resize(int64_t(m.rows) * m.columns);
      assay::lean(m, scale, direction.data());
      memory.try_emplace({m.rows, m.columns}, m.rows, m.columns).first->second.run(direction.data());
      assay::follow(m, direction.data());
    });
  });
}
}
