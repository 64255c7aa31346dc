// Random words by counter: Philox4x32-10 of Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as
// easy as 1, 2, 3" (SC 2011). A word depends on key and counter alone, so none has to be kept.

#pragma once

#include "vector.h"

namespace assay {
namespace {

typedef uint64_t Longs __attribute__((vector_size(4 * kLanes)));

struct Words4 {
  Words word[4];
};

// The product of the low halves.
inline Longs low_product(Longs a, Longs b) {
#if defined(__AVX512F__)
  return (Longs)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (Longs)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

// A block of words for each of kLanes counters, whose first words follow `first` and whose others are
// `rest`. A long holds the word of one counter in its low half; what its high half holds is ignored.
inline Words4 random_words(uint64_t key, uint32_t first, const uint32_t (&rest)[3]) {
  const Longs zero = {}, m0 = zero + 0xD2511F53, m1 = zero + 0xCD9E8D57;
  Words counters;
  for (int lane = 0; lane < kLanes; ++lane) counters[lane] = first + lane;
  Longs x[2][4];  // of counters in even and in odd lanes
  for (int odd = 0; odd < 2; ++odd) {
    x[odd][0] = odd ? (Longs)counters >> 32 : (Longs)counters;
    for (int i = 1; i < 4; ++i) x[odd][i] = zero + rest[i - 1];
  }
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (auto& of : x) {
      const Longs p0 = low_product(of[0], m0), p1 = low_product(of[2], m1);
      of[0] = (p1 >> 32) ^ of[1] ^ uint64_t(k0);
      of[2] = (p0 >> 32) ^ of[3] ^ uint64_t(k1);
      of[1] = p1;
      of[3] = p0;
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  Words4 made;
  for (int i = 0; i < 4; ++i) made.word[i] = (Words)((x[0][i] & 0xffffffff) | (x[1][i] << 32));
  return made;
}

}  // namespace
}  // namespace assay
