// Vectors as wide as the processor's, in the compiler's own notation (GCC and Clang), memory that
// begins where a line of the cache does, and the few functions that models need of them.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#ifdef __AVX2__
#pragma GCC diagnostic push
#ifndef __clang__  // GCC before 13 warns of its own intrinsics (its bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace assay {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// A vector that lies across two lines costs two loads, and what the system hands out begins 16
// bytes after a line.
template <typename T>
struct OnLines {
  typedef T value_type;
  static constexpr std::align_val_t kLine{64};
  OnLines() = default;
  template <typename U>
  OnLines(const OnLines<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), kLine)); }
  void deallocate(T* at, size_t) { ::operator delete(at, kLine); }
  bool operator==(const OnLines&) const { return true; }
  bool operator!=(const OnLines&) const { return false; }
};
typedef std::vector<float, OnLines<float>> Floats;

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef int8_t Bytes __attribute__((vector_size(kLanes)));

struct BF16 {
  uint16_t bits;
};

inline Vec load(const float* from) {
  Vec v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline Vec load(const BF16* from) {
#if defined(__AVX512F__)  // GCC 12 makes three instructions of what is one
  Words words = (Words)_mm512_slli_epi32(
      _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#else
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  Words words = __builtin_convertvector(halves, Words) << 16;
#endif
  Vec v;
  std::memcpy(&v, &words, sizeof v);
  return v;
}

inline Vec load(const int8_t* from) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#elif defined(__AVX2__)
  return (Vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#else
  Bytes bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return __builtin_convertvector(__builtin_convertvector(bytes, Ints), Vec);
#endif
}

inline Vec splat(float value) { return value - Vec{}; }  // a sum with 0 would be computed: it turns -0 into 0

// x within bounds; a NaN stays one.
inline Vec between(float low, Vec x, float high) {
#if defined(__AVX512F__)  // which of two is returned, if one is a NaN, is laid down: the second
  return (Vec)_mm512_min_ps((__m512)splat(high), _mm512_max_ps((__m512)splat(low), (__m512)x));
#else
  const Vec raised = x < low ? splat(low) : x;
  return raised > high ? splat(high) : raised;
#endif
}

inline void store(float* to, Vec v) { std::memcpy(to, &v, sizeof v); }

// To the nearest, halves to the even one; a NaN stays one.
inline Halves rounded(Vec v) {
#if defined(__AVX512BF16__)
  return (Halves)_mm512_cvtneps_pbh((__m512)v);
#else
  Words words;
  std::memcpy(&words, &v, sizeof words);
  const Words nearest = (words + 0x7fff + ((words >> 16) & 1)) >> 16;
  const Words kept = v == v ? nearest : (words >> 16) | 0x40;
  return __builtin_convertvector(kept, Halves);
#endif
}

inline void store(BF16* to, Vec v) {
  const Halves halves = rounded(v);
  std::memcpy(to, &halves, sizeof halves);
}

// To the nearest whole number, halves to the even one, within [-127, 127].
inline void store(int8_t* to, Vec v) {
  const float large = 12582912.0f;  // 1.5 2^23: beside it there is no room for fractions
  const Vec whole = between(-127.0f, v + large - large, 127.0f);
  const Bytes bytes = __builtin_convertvector(__builtin_convertvector(whole, Ints), Bytes);
  std::memcpy(to, &bytes, sizeof bytes);
}

// The rest of a row, filled up with zeros: it goes through the same instructions as what was before it.
template <typename T>
Vec load_some(const T* from, int count) {
  T some[kLanes] = {};
  std::memcpy(some, from, sizeof(T) * count);
  return load(some);
}

template <typename T>
void store_some(T* to, Vec v, int count) {
  T some[kLanes];
  store(some, v);
  std::memcpy(to, some, sizeof(T) * count);
}

#if defined(__AVX512F__)
inline __mmask16 first_lanes(int count) { return __mmask16((1u << count) - 1); }

inline Vec load_some(const float* from, int count) {
  return (Vec)_mm512_maskz_loadu_ps(first_lanes(count), from);
}

inline void store_some(float* to, Vec v, int count) {
  _mm512_mask_storeu_ps(to, first_lanes(count), (__m512)v);
}
#endif

// v, in a register: where it meets several numbers it is not loaded again for each.
inline Vec held(Vec v) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  __asm__("" : "+x"(v));
#endif
  return v;
}

// a b + c, rounded once where the processor can. The compiler fuses nothing by itself
// (-ffp-contract=off): it would here and not there, and bits would depend on how a batch is cut.
inline Vec fused(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

inline float sum(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#elif defined(__AVX2__)
  const __m128 four = _mm256_castps256_ps128((__m256)v) + _mm256_extractf128_ps((__m256)v, 1);
  const __m128 two = four + _mm_movehl_ps(four, four);
  return _mm_cvtss_f32(two + _mm_movehdup_ps(two));
#else
  float lane[kLanes];
  store(lane, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  return lane[0];
#endif
}

inline Vec root(Vec v) {
#if defined(__AVX512F__)
  return (Vec)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__)
  return (Vec)_mm256_sqrt_ps((__m256)v);
#else
  for (int lane = 0; lane < kLanes; ++lane) v[lane] = std::sqrt(v[lane]);
  return v;
#endif
}

inline float largest(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v);
#else
  float most = v[0];
  for (int lane = 1; lane < kLanes; ++lane) most = v[lane] > most ? v[lane] : most;
  return most;
#endif
}

// 1 / v to a unit in the last place, for v that is not infinite.
inline Vec inverse(Vec v) {
#if defined(__AVX512F__)  // a division takes as long as six products
  const Vec near = (Vec)_mm512_rcp14_ps((__m512)v);
  return fused(near, fused(-v, near, splat(1.0f)), near);
#else
  return 1.0f / v;
#endif
}

// e^x to 2 units in the last place up to 88, where it stays; 0 from -104 on, or already from -87.
__attribute__((always_inline)) inline Vec exp(Vec x) {
  const Vec near = between(-104.0f, x, 88.0f);
  const Vec n = fused(near, splat(1.44269504f), splat(12582912.0f)) - 12582912.0f;  // a whole number
  const Vec r = fused(n, splat(2.12194440e-4f), fused(n, splat(-0.693359375f), near));
  Vec p = splat(1.9875691500e-4f);
  for (float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 0.5f})
    p = fused(p, r, splat(next));
  p = fused(p * r, r, r + 1.0f);
#if defined(__AVX512F__)
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  const Ints scale = (__builtin_convertvector(n, Ints) + 127) << 23;
  Vec power;
  std::memcpy(&power, &scale, sizeof power);
  return x < -87.0f ? splat(0.0f) : p * power;
#endif
}

// A bit for each lane: whether its word is no less than `bound`, both below 2^31.
inline uint32_t lanes_from(Words v, uint32_t bound) {
#if defined(__AVX512F__)
  return _mm512_cmpge_epu32_mask((__m512i)v, _mm512_set1_epi32(bound));
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)((Ints)v >= int32_t(bound)));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= uint32_t(v[lane] >= bound) << lane;
  return bits;
#endif
}

// v in the lanes whose bits are set, 0 in the others.
inline Vec chosen(uint32_t bits, Vec v) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_mov_ps(__mmask16(bits), (__m512)v);
#else
  Words lanes;
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = 1u << lane;
  return ((Words{} + bits) & lanes) != 0 ? v : Vec{};
#endif
}

// Calls f(i, count) for whole vectors and for what is left of `width`.
template <typename F>
inline void each(int64_t width, F f) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) f(i, kLanes);
  if (i < width) f(i, int(width - i));
}

template <typename T>
inline Vec take(const T* from, int count) {
  return count == kLanes ? load(from) : load_some(from, count);
}

template <typename T>
inline void put(T* to, Vec v, int count) {
  if (count == kLanes)
    store(to, v);
  else
    store_some(to, v, count);
}

template <typename F>
void map(float* values, int64_t count, F f) {
  each(count, [&](int64_t i, int n) { put(values + i, f(take(values + i, n)), n); });
}

// The sum of f over a row; what lies beyond its end counts as nothing.
template <typename F>
float total(const float* values, int count, F f) {
  Vec partial = {};
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) partial += f(load(values + i));
  if (i < count) {
    Vec some = f(load_some(values + i, count - i));
    partial += load_some((const float*)&some, count - i);
  }
  return sum(partial);
}

}  // namespace
}  // namespace assay
