// Muon's orthogonalisation with products of bfloat16, a matrix to a thread: see train/muon.py.
//
// Five times X <- aX + (bG + cG^2) X with G = X X^T, from X of Frobenius norm 1. X and G are rounded
// to bfloat16 wherever they stand, not in products alone: an error of X that all terms share shrinks
// by the next iteration, one that only some have does not. A matrix's bits depend on itself alone.

#include "product.h"
#include "team.h"

namespace assay {
namespace {

constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f, kLeastNorm = 1e-7f;

// to[j][i] = from[i][j]
void turn_over(const float* from, int rows, int columns, float* to, int64_t stride) {
  for (int i = 0; i < rows; i += 16)
    for (int j = 0; j < columns; j += 16) {
      Units block[16] = {};
      const int n = rows - i < 16 ? rows - i : 16, m = columns - j < 16 ? columns - j : 16;
      for (int r = 0; r < n; ++r) block[r] = words(from + int64_t(i + r) * columns + j, m, 0.0f);
      transpose(block);
      for (int c = 0; c < m; ++c) std::memcpy(to + int64_t(j + c) * stride + i, &block[c], 4 * n);
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
      turn_over(matrix, rows_, columns_, x_.data(), x_stride_);
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
    if (rows_ > columns_) turn_over(rows, s_, b_, matrix, s_);
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

  void iterate() {
    const int64_t long_panel = panel_size<BF16>(b_), short_panel = panel_size<BF16>(s_);
    round_rows(x_, x_stride_, b_, x_rows_);
    pack_columns(x_rows_.data(), x_stride_, b_, s_, as_columns_.data(), 0, (s_ + kPanel - 1) / kPanel);
    multiply(Left<BF16>::rows(x_rows_.data(), x_stride_), s_, as_columns_.data(), long_panel, s_, b_,
             gram_.data(), g_stride_, nullptr);
    round_rows(gram_, g_stride_, s_, g_rows_);
    pack_rows(g_rows_.data(), g_stride_, 0, s_, s_, g_panels_.data(), short_panel);
    multiply(Left<BF16>::rows(g_rows_.data(), g_stride_), s_, g_panels_.data(), short_panel, s_, s_,
             square_.data(), g_stride_, nullptr);
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

}  // namespace
}  // namespace assay

extern "C" {

// Makes each of `count` matrices (rows x columns, one behind another) orthogonal, in place.
void assay_orthogonalise(float* matrices, int32_t count, int32_t rows, int32_t columns, int32_t n_threads) {
  std::atomic<int> next{0};
  assay::together(n_threads < count ? n_threads : count, [&](assay::Team) {
    const assay::Ready<assay::BF16> ready;
    assay::Orthogonal work(rows, columns);
    for (int i; (i = next.fetch_add(1)) < count;) work.run(matrices + int64_t(i) * rows * columns);
  });
}
}
