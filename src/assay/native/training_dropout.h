// Dropout: which numbers of a matrix stay, a function of seed, place, row and column. Nothing is kept
// between forward and backward; both ask anew.

#pragma once

#include "random.h"
#include "training_rows.h"

namespace assay {
namespace {

struct Dropout {  // at one place of a model
  uint64_t seed;
  uint32_t place, bound;  // of 2^16: below it a number goes
  float factor;           // of those that stay

  Dropout(uint64_t seed, int place, float p)
      : seed(seed), place(place), bound(std::lround(65536.0f * p)),
        factor(bound < 65536 ? 65536.0f / (65536 - bound) : 0.0f) {}
  explicit operator bool() const { return bound > 0; }
};

// A bit for every number of some rows.
class Stays {
 public:
  static constexpr int kStrip = 8, kBits = 16;  // the rows and columns of 16 counters

  Stays(int n_rows, int64_t width)
      : stride_((width + kBits - 1) / kBits), bits_((n_rows + kStrip - 1) / kStrip * kStrip * stride_) {}

  // Rows from `first_row`, a multiple of kStrip, columns from `first_column`, one of kBits. `end(i)` is
  // up to which column row i is asked for, no less than row i - 1.
  template <typename F>
  void draw(const Dropout& dropout, uint32_t plane, int first_row, int n_rows, int first_column, F end) {
    for (int row = 0; row < n_rows; row += kStrip) {
      const int last = row + kStrip < n_rows ? row + kStrip - 1 : n_rows - 1, width = end(last);
      const uint32_t rest[] = {uint32_t(first_row + row) / kStrip, plane, dropout.place};
      for (int column = 0; column < width; column += kBits)
        draw_block(dropout, uint32_t(first_column + column), rest, at(row) + column / kBits);
    }
  }

  uint16_t* at(int row) { return &bits_[row * stride_]; }

 private:
  void draw_block(const Dropout& dropout, uint32_t column, const uint32_t (&rest)[3], uint16_t* to) {
    for (int row = 0; row < kStrip; ++row) to[row * stride_] = 0;
    for (int lane = 0; lane < kBits; lane += kLanes) {
      const Words4 random = random_words(dropout.seed, column + lane, rest);
      for (int row = 0; row < kStrip; ++row) {
        const Words word = random.word[row / 2], half = row % 2 ? word >> 16 : word & 0xffff;
        to[row * stride_] |= lanes_from(half, dropout.bound) << lane;
      }
    }
  }

  int64_t stride_;
  std::vector<uint16_t> bits_;
};

// v where its bits are set, 0 elsewhere; the first number of v is that of `column`.
inline Vec staying(const uint16_t* bits, int column, Vec v) {
  return chosen(bits[column / Stays::kBits] >> column % Stays::kBits, v);
}

// What is left of a row.
template <typename Out>
void drop_row(const float* from, const uint16_t* bits, float factor, Out* out, int width) {
  each(width, [&](int i, int n) { put(out + i, staying(bits, i, take(from + i, n)) * factor, n); });
}

}  // namespace
}  // namespace assay
