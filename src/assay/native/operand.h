// What meets weights in bfloat16 or int8: the entries of a product, rounded or split in two, and where
// results go.

#pragma once

#include "product.h"
#include "team.h"

#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define ASSAY_DOTS 1
#endif

namespace assay {
namespace {

// Where the results of a product go: an entry a row.
struct Target {
  float* out;
  int64_t stride;
  bool add;
  const float *scale, *bias;
  float of(int row, float value) const {
    if (scale) value *= scale[row];
    return bias ? value + bias[row] : value;
  }
  void put(int row, int entry, float value) const {
    float& place = out[entry * stride + row];
    place = add ? place + of(row, value) : of(row, value);
  }
};

#ifdef ASSAY_DOTS

constexpr int kFewest = 8;  // entries for which panels of int8 are worth it without tiles

// The entries of a product: in bfloat16, or split into two bytes. A thread takes some of them; all must
// be there before a product.
class Operand {
 public:
  Operand(int64_t count, int64_t width)
      : width_(width), stride_((width + 63) / 64 * 64), high_(2 * count * stride_), low_(count * stride_),
        high_panels_(2 * padded(count) * stride_), low_panels_(padded(count) * stride_), steps_(padded(count)) {}

  // This thread's share of the entries, in panels of 16.
  void take_in(const float* x, int count, bool int8, Team team) {
    int first, last;
    span(count, kPanel, team, first, last);
    if (first == last) return;  // of a panel that another thread takes
    for (int e = first; e < last; ++e) int8 ? split(x + e * width_, e) : round(x + e * width_, e);
    if (!in_tiles<BF16>() && !(int8 && count >= kFewest)) return;
    for (int panel = first / kPanel; panel * kPanel < last; ++panel)
      for (int half = 0; half <= int8; ++half) lay_out(panel, last - panel * kPanel, int8, half);
  }

  const BF16* bf16(int entry) const { return (const BF16*)rows(0) + entry * stride_; }
  const uint8_t* int8(int half, int entry) const { return rows(half) + entry * stride_; }
  const uint8_t* panel(int half, int index, bool int8) const {
    return (half ? low_panels_ : high_panels_).data() + index * stride_ * kPanel * (int8 ? 1 : 2);
  }
  float step(int entry) const { return steps_[entry]; }
  const float* steps() const { return steps_.data(); }

 private:
  typedef std::vector<uint8_t, OnLines<uint8_t>> Raw;
  const uint8_t* rows(int half) const { return (half ? low_ : high_).data(); }

  void round(const float* x, int entry) {
    BF16* to = (BF16*)high_.data() + entry * stride_;
    each(width_, [&](int i, int n) { put(to + i, take(x + i, n), n); });
  }

  // Both halves as bytes without sign, the high one 128 too large: that is how VNNI wants them.
  void split(const float* x, int entry) {
    Vec most = {};
    bool finite = true;
    each(width_, [&](int i, int n) {
      const Vec v = take(x + i, n), size = v < 0.0f ? -v : v;
      most = size > most ? size : most;
      finite &= sum(v - v) == 0.0f;
    });
    float largest = 0;
    for (int lane = 0; lane < kLanes; ++lane) largest = most[lane] > largest ? most[lane] : largest;
    const float step = largest > 0 ? largest / 16383.0f : 1.0f;
    steps_[entry] = finite ? step : NAN;
    uint8_t *high = high_.data() + entry * stride_, *low = low_.data() + entry * stride_;
    const float factor = finite ? 1.0f / step : 0.0f;
    for (int64_t i = 0; i < stride_; i += kLanes) {
      const int64_t left = width_ - i;
      const Vec v = left >= kLanes ? load(x + i) : left > 0 ? load_some(x + i, left) : Vec{};
      const __m512i whole = _mm512_cvtps_epi32((__m512)(finite ? v * factor : Vec{}));
      const __m512i part = _mm512_add_epi32(whole, _mm512_set1_epi32(128 * 128));
      _mm_storeu_si128((__m128i*)(high + i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(part, 7)));
      _mm_storeu_si128((__m128i*)(low + i),
                       _mm512_cvtepi32_epi8(_mm512_and_si512(part, _mm512_set1_epi32(127))));
    }
  }

  // Panels: units of 32 bits along the width, of 16 entries side by side. Tiles want signed bytes.
  void lay_out(int panel, int count, bool int8, int half) {
    const int64_t size = stride_ * (int8 ? 1 : 2);
    const uint8_t* from = rows(half) + panel * kPanel * size;
    uint8_t* to = (half ? low_panels_ : high_panels_).data() + panel * kPanel * size;
    const uint32_t flip = in_tiles<BF16>() && int8 && !half ? 0x80808080u : 0u;
    if (count == 1) {  // what stands beside it reaches no result
      for (int64_t u = 0; u < size / 4; ++u) {
        uint32_t unit;
        std::memcpy(&unit, from + 4 * u, 4);
        unit ^= flip;
        std::memcpy(to + 4 * kPanel * u, &unit, 4);
      }
      return;
    }
    const Units sign = Units{} + flip;
    for (int64_t i = 0; i < size; i += 64) {
      Units block[16] = {};
      for (int e = 0; e < kPanel && e < count; ++e) {
        std::memcpy(&block[e], from + e * size + i, 64);
        block[e] ^= sign;
      }
      transpose(block, sizeof(Units), to + i * kPanel);
    }
  }

  const int64_t width_, stride_;
  Raw high_, low_, high_panels_, low_panels_;
  std::vector<float> steps_;
};

#else

struct Operand {
  Operand(int64_t, int64_t) {}
};

#endif  // ASSAY_DOTS

}  // namespace
}  // namespace assay
