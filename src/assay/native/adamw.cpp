// AdamW (Loshchilov & Hutter 2017, algorithm 2) and the norm of gradients, over all tensors of a model
// at once. Threads take pieces of them, whose size is always the same: bits depend on no number of
// threads.

#include "abi.h"
#include "team.h"
#include "vector.h"

namespace assay {
namespace {

std::vector<Piece> pieces_of(const GradientOf* gradients, int n) {
  std::vector<Piece> found;
  for (int i = 0; i < n; ++i) cut(i, gradients[i].count, 4096, found);
  return found;
}

// f(piece, its number) for all pieces, by all threads.
template <typename F>
void share(const std::vector<Piece>& pieces, int n_threads, F f) {
  together(n_threads, [&](Team team) { team.share(pieces.size(), [&](int i) { f(pieces[i], i); }); });
}

void update(const UpdateOf& u, const float* gradient, float scale, const Piece& piece) {
  const double step = *u.step + 1.0;
  const float mean_share = 1.0 - u.beta1, square_share = 1.0 - u.beta2, eps = u.eps;
  const float rate = u.lr / (1.0 - std::pow(u.beta1, step)), kept = 1.0 - u.lr * u.decay;
  const float factor = 1.0 / std::sqrt(1.0 - std::pow(u.beta2, step));
  gradient += piece.first;
  float *weight = u.weight + piece.first, *mean = u.mean + piece.first, *square = u.square + piece.first;
  each(piece.count, [&](int i, int n) {
    const Vec g = take(gradient + i, n) * scale;
    Vec m = take(mean + i, n), v = take(square + i, n);
    m += mean_share * (g - m);
    v += square_share * (g * g - v);
    put(mean + i, m, n);
    put(square + i, v, n);
    put(weight + i, kept * take(weight + i, n) - rate * m / (factor * root(v) + eps), n);
  });
}

}  // namespace
}  // namespace assay

extern "C" {

int32_t assay_norm(const GradientOf* gradients, int32_t n, int32_t n_threads, double* norm) {
  return assay::guarded([&] {
    const std::vector<assay::Piece> pieces = assay::pieces_of(gradients, n);
    std::vector<float> squares(pieces.size());
    assay::share(pieces, n_threads, [&](const assay::Piece& piece, int i) {
      const float* from = gradients[piece.thing].gradient + piece.first;
      squares[i] = assay::total(from, piece.count, [](assay::Vec g) { return g * g; });
    });
    double whole = 0;
    for (float square : squares) whole += square;
    *norm = std::sqrt(whole);
  });
}

// One step of all tensors, by gradients times `scale`; memory is taken before the first is changed.
int32_t assay_adamw(const UpdateOf* updates, const GradientOf* gradients, int32_t n, float scale,
                    int32_t n_threads) {
  return assay::guarded([&] {
    assay::share(assay::pieces_of(gradients, n), n_threads, [&](const assay::Piece& piece, int) {
      assay::update(updates[piece.thing], gradients[piece.thing].gradient, scale, piece);
    });
    for (int i = 0; i < n; ++i) *updates[i].step += 1;
  });
}
}
