// Muon, a matrix to a thread: see train/muon.py.
//
// A direction is made orthogonal by five times X <- aX + (bG + cG^2) X with G = X X^T, from X of
// Frobenius norm 1: with products of bfloat16 as it stands, in float32 by products of G alone. A
// matrix's bits depend on itself alone.

#include <map>

#include "abi.h"
#include "product.h"
#include "team.h"

namespace assay {
namespace {

constexpr int kIterations = 5;
constexpr float kA = 3.4445f, kB = -4.7750f, kC = 2.0315f, kLeastNorm = 1e-7f;

// to[j][i] = from[i][j]
void turn_over(const float* from, int64_t from_stride, int rows, int columns, float* to, int64_t stride) {
  for (int i = 0; i < rows; i += 16)
    for (int j = 0; j < columns; j += 16) {
      const int n = std::min(rows - i, 16), m = std::min(columns - j, 16);
      const float* at = from + i * from_stride + j;
      Units turned[16];
      if (n == 16 && m == 16) {
        transpose(at, 4 * from_stride, turned);
      } else {
        Units block[16] = {};
        for (int r = 0; r < n; ++r) block[r] = words(at + r * from_stride, m, 0.0f);
        transpose(block, sizeof(Units), turned);
      }
      for (int c = 0; c < m; ++c) std::memcpy(to + int64_t(j + c) * stride + i, &turned[c], 4 * n);
    }
}

// To Frobenius norm 1, if it has any.
void normalise(float* matrix, int64_t count) {
  constexpr int64_t kRow = 1 << 12;  // summed in float32
  double squares = 0;
  for (int64_t i = 0; i < count; i += kRow)
    squares += total(matrix + i, std::min(kRow, count - i), [](Vec v) { return v * v; });
  const float norm = std::max(float(std::sqrt(squares)), kLeastNorm);
  map(matrix, count, [norm](Vec v) { return v / norm; });
}

// Products of S x S matrices, whose rows have `stride_` numbers.
template <typename T>
class Grams {
 protected:
  explicit Grams(int s) : s_(s), stride_(padded(s)) {}

  // to = A B of depth k, of which it is known that it is symmetric: half is found, half is copied.
  void symmetric(const Left<T>& a, const T* b, int k, Floats& to) const {
    const int64_t panel = panel_size<T>(k);
    for (int i = 0; i < s_; i += kPad) {
      const int end = i + kPad, count = std::min(s_ - i, kPad);
      float* at = &to[i * stride_ + i];
      multiply(a.from(i, 0), count, b + i / kPanel * panel, panel, s_ - i, k, at, stride_, nullptr);
      if (end < s_) turn_over(at + kPad, stride_, count, s_ - end, &to[end * stride_ + i], stride_);
    }
  }

  // square = bG + cG^2
  void finish_polynomial(const Floats& gram, Floats& square) const {
    for (int i = 0; i < s_; ++i)
      each(s_, [&](int j, int n) {
        const int64_t at = i * stride_ + j;
        put(&square[at], kB * take(&gram[at], n) + kC * take(&square[at], n), n);
      });
  }

  const int s_;
  const int64_t stride_;
};

// With products of bfloat16. X and G are rounded wherever they stand, not in products alone: an error of
// X that all terms share shrinks by the next iteration, one that only some have does not.
class InBF16 : Grams<BF16> {
 public:
  typedef BF16 Number;

  InBF16(int rows, int columns)
      : Grams(std::min(rows, columns)), tall_(rows > columns), b_(std::max(rows, columns)),
        x_stride_(padded(b_)), x_(s_ * x_stride_), gram_(s_ * stride_), square_(s_ * stride_),
        x_rows_(as_left(x_stride_)), g_rows_(as_left(stride_)), as_columns_(panels_size<BF16>(s_, b_)),
        as_rows_(panels_size<BF16>(b_, s_)), g_panels_(panels_size<BF16>(s_, s_)) {}

  void run(Floats& matrix) {
    if (tall_)
      turn_over(matrix.data(), s_, b_, s_, x_.data(), x_stride_);
    else
      for (int i = 0; i < s_; ++i) std::memcpy(&x_[i * x_stride_], &matrix[int64_t(i) * b_], 4 * b_);
    for (int i = 0; i < kIterations; ++i) iterate();
    if (tall_)
      turn_over(x_.data(), x_stride_, s_, b_, matrix.data(), s_);
    else
      for (int i = 0; i < s_; ++i) std::memcpy(&matrix[int64_t(i) * b_], &x_[i * x_stride_], 4 * b_);
  }

 private:
  typedef std::vector<BF16, OnLines<BF16>> Row;

  // Numbers of a left operand, with those that products may read beyond its rows.
  int64_t as_left(int64_t stride) const { return (s_ + kPad) * stride + kPad; }

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
    const int64_t short_panel = panel_size<BF16>(s_);
    round_rows(x_, x_stride_, b_, x_rows_);
    pack_columns(x_rows_.data(), x_stride_, b_, s_, as_columns_.data(), 0, (s_ + kPanel - 1) / kPanel);
    symmetric(Left<BF16>::rows(x_rows_.data(), x_stride_), as_columns_.data(), b_, gram_);
    round_rows(gram_, stride_, s_, g_rows_);
    pack_rows(g_rows_.data(), stride_, 0, s_, s_, g_panels_.data(), short_panel);
    symmetric(Left<BF16>::rows(g_rows_.data(), stride_), g_panels_.data(), s_, square_);
    finish_polynomial(gram_, square_);
    round_rows(square_, stride_, s_, g_rows_);
    pack_rows(x_rows_.data(), x_stride_, 0, s_, b_, as_rows_.data(), short_panel);
    for (int i = 0; i < s_; ++i) map(&x_[i * x_stride_], b_, [](Vec v) { return kA * v; });
    multiply(Left<BF16>::rows(g_rows_.data(), stride_), s_, as_rows_.data(), short_panel, b_, s_, x_.data(),
             x_stride_, x_.data());
  }

  const bool tall_;
  const int b_;
  const int64_t x_stride_;
  Floats x_, gram_, square_;
  Row x_rows_, g_rows_, as_columns_, as_rows_, g_panels_;
};

// In float32, mostly by products of G: with P = a + bG + cG^2 an iteration is X <- P X, G <- P G P. All
// these are symmetric and commute. A rounding in G grows by a^2 an iteration where G is small, and faster
// for halves being copied; so after three of them X is found, and G anew.
class InFloat32 : Grams<float> {
 public:
  typedef float Number;

  InFloat32(int rows, int columns)
      : Grams(std::min(rows, columns)), rows_(rows), columns_(columns), gram_(s_ * stride_),
        factor_(s_ * stride_), product_(s_ * stride_), other_(s_ * stride_),
        found_(int64_t(rows) * columns), g_panels_(panels_size<float>(s_, s_)),
        x_panels_(std::max(panels_size<float>(columns, rows), panels_size<float>(rows, columns))) {}

  void run(Floats& matrix) {
    iterate(matrix, 3);
    iterate(matrix, kIterations - 3);
  }

 private:
  bool tall() const { return rows_ > columns_; }

  void iterate(Floats& matrix, int times) {
    take_gram(matrix);
    take_factor();
    product_ = factor_;
    while (--times) {
      pack(factor_);
      times_panels(gram_);
      times_panels(gram_);
      take_factor();
      pack(factor_);
      times_panels(product_);
    }
    give(matrix);
    matrix.swap(found_);
  }

  // Of rows, or, of a tall matrix, of columns.
  void take_gram(const Floats& matrix) {
    float* panels = x_panels_.data();
    if (tall()) {
      pack_rows(matrix.data(), columns_, 0, rows_, columns_, panels, panel_size<float>(rows_));
      symmetric(Left<float>::turned(panels, rows_), panels, rows_, gram_);
    } else {
      pack_columns(matrix.data(), columns_, columns_, rows_, panels, 0, (rows_ + kPanel - 1) / kPanel);
      symmetric(Left<float>::rows(matrix.data(), columns_), panels, columns_, gram_);
    }
  }

  // The product of all factors with the matrix.
  void give(const Floats& matrix) {
    const int64_t panel = panel_size<float>(s_);
    const Floats &left = tall() ? matrix : product_, &right = tall() ? product_ : matrix;
    const int64_t left_stride = tall() ? columns_ : stride_, right_stride = tall() ? stride_ : columns_;
    pack_rows(right.data(), right_stride, 0, s_, columns_, x_panels_.data(), panel);
    multiply(Left<float>::rows(left.data(), left_stride), rows_, x_panels_.data(), panel, columns_, s_,
             found_.data(), columns_, nullptr);
  }

  void take_factor() {
    pack(gram_);
    symmetric(Left<float>::rows(gram_.data(), stride_), g_panels_.data(), s_, factor_);
    finish_polynomial(gram_, factor_);
    for (int i = 0; i < s_; ++i) factor_[i * stride_ + i] += kA;
  }

  void pack(const Floats& g) {
    pack_rows(g.data(), stride_, 0, s_, s_, g_panels_.data(), panel_size<float>(s_));
  }

  void times_panels(Floats& g) {
    symmetric(Left<float>::rows(g.data(), stride_), g_panels_.data(), s_, other_);
    g.swap(other_);
  }

  const int rows_, columns_;
  Floats gram_, factor_, product_, other_, found_, g_panels_, x_panels_;
};

// Takes the gradient, times `scale`, into the mean; returns Nesterov's direction in `to`.
void lean(const MatrixOf& m, float scale, float* to) {
  each(int64_t(m.rows) * m.columns, [&](int64_t i, int n) {
    const Vec g = take(m.gradient + i, n) * scale, mean = take(m.mean + i, n);
    const Vec now = mean + (1.0f - m.momentum) * (g - mean);
    put(m.mean + i, now, n);
    put(to + i, g + m.momentum * (now - g), n);
  });
}

void follow(const MatrixOf& m, const float* direction) {
  each(int64_t(m.rows) * m.columns, [&](int64_t i, int n) {
    put(m.weight + i, m.kept * take(m.weight + i, n) - m.rate * take(direction + i, n), n);
  });
}

template <typename Orthogonal>
struct Work {  // of one thread, for matrices of one shape
  Orthogonal orthogonal;
  Floats direction;
  Work(int rows, int columns) : orthogonal(rows, columns), direction(int64_t(rows) * columns) {}
};

template <typename Orthogonal>
void step(const MatrixOf* matrices, int count, float scale, Team team) {
  const Ready<typename Orthogonal::Number> ready;
  // All memory is taken before any matrix is changed: a step is taken whole or not at all.
  std::map<std::pair<int, int>, Work<Orthogonal>> memory;
  for (int i = 0; i < count; ++i)
    memory.try_emplace({matrices[i].rows, matrices[i].columns}, matrices[i].rows, matrices[i].columns);
  team.wait();
  team.share(count, [&](int i) {
    const MatrixOf& m = matrices[i];
    auto& [orthogonal, direction] = memory.at({m.rows, m.columns});
    lean(m, scale, direction.data());
    normalise(direction.data(), direction.size());
    orthogonal.run(direction);
    follow(m, direction.data());
  });
}

}  // namespace
}  // namespace assay

extern "C" {

// One step of each of `count` matrices, by gradients times `scale`, with products of bfloat16 or not.
int32_t assay_muon(const MatrixOf* matrices, int32_t count, float scale, int32_t bf16, int32_t n_threads) {
  return assay::guarded([&] {
    assay::together(n_threads < count ? n_threads : count, [&](assay::Team team) {
      if (bf16)
        assay::step<assay::InBF16>(matrices, count, scale, team);
      else
        assay::step<assay::InFloat32>(matrices, count, scale, team);
    });
  });
}
}
