// One training pass of a GPT on a CPU: the mean loss of a batch and its gradient in every parameter.
//
// Products take operands in float32 or bfloat16 and are summed in float32; everything between them
// is float32. A token's row goes through all that concerns it alone in one go, a block of tokens at
// a time, so that it stays in the cache; threads meet only where tokens do, in attention and in the
// gradients of weights. Every sum is taken in an order that depends on the shapes alone: not on the
// number of threads, nor on what other models are trained beside this one.
//
// Formulas are those of nn/reference.py; backward they are its derivatives.

#include "training_memory.h"

namespace assay {
namespace {

struct AnyPass {
  virtual ~AnyPass() = default;
  virtual void run(const TrainedModel& model, TrainingJob& job, Team team) = 0;
};

template <typename T>
class Pass final : public AnyPass {
 public:
  Pass(const TrainedModel& model, int n_threads) : m_(model), held_(m_, n_threads) {}

  void run(const TrainedModel& model, TrainingJob& job, Team team) override {
    const Ready<T> ready;
    if (team.index == 0) {
      m_ = model;
      job_ = &job;
    }
    team.wait();
    pack_weights(team);
    embed(team);
    for (int l = 0; l < m_.n_layers; ++l) layer_forward(l, team);
    learn_head(team);
    for (int l = m_.n_layers - 1; l >= 0; --l) layer_backward(l, team);
    learn_embedding(team);
    if (team.index) return;
    double whole = 0;
    for (float loss : held_.losses) whole += loss;
    job.loss = whole / held_.n;
  }

 private:
  struct Part {  // a block of tokens, and whose it is
    int first, count, index;
    Own<T>& own;
  };

  bool before() const { return m_.block == kPre || m_.block == kParallel; }
  bool adds() const { return m_.block != kPlain; }
  Held<T>& layer(int l) { return held_.layers[l]; }
  Panels<T>& panels(int l, int place) { return held_.panels[l * kPlaces + place]; }
  Rows<float>& in_of(int l) { return l < m_.n_layers ? layer(l).in : held_.last; }

  // The stream as the MLP's residual finds it.
  Rows<float>& middle_of(int l) {
    return !m_.n_heads ? layer(l).in : before() ? layer(l).summed : layer(l).middle;
  }

  // f(part) for this thread's blocks of the tokens from `first` on.
  template <typename F>
  void blocks(Team team, F f, int first = 0, int64_t count = INT32_MAX) {
    const int end = std::min<int64_t>(held_.n, first + count), size = held_.block;
    int low, high;
    span((end - first + size - 1) / size, 1, team, low, high);
    for (int b = low; b < high; ++b) {
      const int at = first + b * size;
      f(Part{at, std::min(size, end - at), at / size, *held_.own[team.index]});
    }
  }

  // --- weights

  void pack(const TrainedLinear& w, Panels<T>& panels, Team team) {
    if (!w.weight) return;
    int first, last;
    span((w.n_out + kPanel - 1) / kPanel, 1, team, first, last);
    pack_columns(w.weight, w.n_in, w.n_in, w.n_out, panels.forward.data(), first, last);
    span(w.n_out, kPad, team, first, last);
    if (first < last)
      pack_rows(w.weight + int64_t(first) * w.n_in, w.n_in, first, last - first, w.n_in,
                panels.back.data(), panel_size<T>(w.n_out));
  }

  void pack_weights(Team team) {
    for (int l = 0; l < m_.n_layers; ++l)
      for (int place = 0; place < kPlaces; ++place)
        pack(linear_at(m_.layers[l], place), panels(l, place), team);
    pack(m_.head, held_.head, team);
    team.wait();
  }

  // c = or += x W^T + bias for the rows of a block.
  void through(const TrainedLinear& w, const Panels<T>& panels, const T* x, int64_t x_stride, int count,
               float* c, int64_t stride, bool add = false) {
    multiply(Left<T>::rows(x, x_stride), count, panels.forward.data(), panel_size<T>(w.n_in), w.n_out,
             w.n_in, c, stride, add);
    if (w.bias)
      for (int i = 0; i < count; ++i) add_row(c + i * stride, w.bias, w.n_out);
  }

  // c = or += dy W, and dy is laid out for the gradient of W.
  void back_through(const TrainedLinear& w, const Panels<T>& panels, Rows<T>& dy, const Part& part,
                    Row<T>& turned, int first, int64_t n_all, Rows<float>& c, bool add = false) {
    multiply(Left<T>::rows(dy.at(0), dy.stride), part.count, panels.back.data(), panel_size<T>(w.n_out),
             w.n_in, w.n_out, c.at(0), c.stride, add);
    pack_turned(dy.at(0), dy.stride, first, part.count, w.n_out, turned.data(), n_all);
  }

  void back_through(int l, int place, Rows<T>& dy, const Part& part, Rows<float>& c, bool add = false) {
    const TrainedLinear& w = linear_at(m_.layers[l], place);
    back_through(w, panels(l, place), dy, part, held_.turned[place], part.first, held_.n, c, add);
    sum_rows(w, dy, held_.bias_sums[place], part);
  }

  void keep_panels(Rows<T>& rows, int from, const Part& part, int width, Row<T>& to) {
    pack_rows(rows.at(from), rows.stride, part.first, part.count, width, to.data(), panel_size<T>(held_.n));
  }

  // --- forward

  int token_at(int i, int ahead) const {
    return job_->tokens[i / m_.seq_len * (m_.seq_len + 1) + i % m_.seq_len + ahead];
  }

  void embed(Team team) {
    const int d = m_.d_model;
    blocks(team, [&](const Part& part) {
      for (int i = part.first; i < part.first + part.count; ++i) {
        float* x = held_.raw.at(i);
        std::memcpy(x, m_.embed + int64_t(token_at(i, 0)) * d, 4 * d);
        if (m_.added) add_row(x, m_.added + int64_t(i % m_.seq_len) * d, d);
        held_.embed_stats[i] = normalise(m_.embed_norm, x, in_of(0).at(i), d);
      }
    });
  }

  // What enters a branch: normalised or as it is, in the precision of products.
  void enter(const TrainedNorm& norm, Rows<float>& from, std::vector<Stats>& stats, const Part& part,
             Row<T>& panels) {
    for (int i = 0; i < part.count; ++i) {
      const float* x = from.at(part.first + i);
      if (before())
        stats[part.first + i] = normalise(norm, x, part.own.in.at(i), m_.d_model);
      else
        cast_row(x, part.own.in.at(i), m_.d_model);
    }
    keep_panels(part.own.in, 0, part, m_.d_model, panels);
  }

  void layer_forward(int l, Team team) {
    if (m_.n_heads) {
      blocks(team, [&](const Part& part) { enter_mixer(l, part); });
      team.wait();
      attend(l, team, [&](const Heads<T>& heads, int row, int group) {
        held_.own[team.index]->attention->forward(heads, row, group);
      });
      team.wait();
    }
    blocks(team, [&](const Part& part) {
      if (m_.n_heads) leave_mixer(l, part);
      feed_forward(l, part);
    });
  }

  void enter_mixer(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    enter(w.mixer_norm, h.in, h.mixer_stats, part, h.mixer_in);
    heads_forward(l, kQ, w.q_norm, &h.q_raw, h.q, part);
    heads_forward(l, kK, w.k_norm, &h.k_raw, h.k, part);
    heads_forward(l, kV, TrainedNorm{}, nullptr, h.v, part);
  }

  // Queries, keys (normed and turned) or values of a block.
  void heads_forward(int l, int place, const TrainedNorm& norm, Rows<T>* raw, Rows<T>& out, const Part& part) {
    const TrainedLinear& w = linear_at(m_.layers[l], place);
    Rows<float>& c = part.own.wide;
    through(w, panels(l, place), part.own.in.at(0), part.own.in.stride, part.count, c.at(0), c.stride);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float* x = c.at(i);
      if (norm.kind != kNoNorm) {  // of what is held, rounded
        cast_row(x, raw->at(token), w.n_out);
        cast_row(raw->at(token), x, w.n_out);
      }
      for (int at = 0; raw && at < w.n_out; at += m_.d_head) {
        if (norm.kind != kNoNorm) normalise(norm, x + at, x + at, m_.d_head);
        turn_head(x + at, token, false);
      }
      cast_row(x, out.at(token), w.n_out);
    }
  }

  void turn_head(float* head, int token, bool back) {
    const int64_t at = int64_t(token % m_.seq_len) * m_.n_pairs;
    if (m_.n_pairs) turn(head, m_.cos + at, m_.sin + at, m_.n_pairs, back);
  }

  template <typename F>
  void attend(int l, Team team, F f) {
    Held<T>& h = layer(l);
    const Heads<T> heads{h.q.at(0),         h.k.at(0),       h.v.at(0),       h.mixed.at(0),   h.logs.data(),
                         held_.d_mixed.at(0), held_.d_q.at(0), held_.d_k.at(0), held_.d_v.at(0), h.q.stride,
                         h.k.stride};
    int first, last;
    span(m_.n_rows * m_.n_groups, 1, team, first, last);
    for (int i = first; i < last; ++i) f(heads, i / m_.n_groups, i % m_.n_groups);
  }

  void leave_mixer(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    Rows<float>& out = h.summed;
    if (adds()) std::memcpy(out.at(part.first), h.in.at(part.first), 4 * part.count * out.stride);
    through(w.out, panels(l, kOut), h.mixed.at(part.first), h.mixed.stride, part.count, out.at(part.first),
            out.stride, adds());
    if (before()) return;
    for (int i = part.first; i < part.first + part.count; ++i)
      h.mixer_stats[i] = normalise(w.mixer_norm, out.at(i), h.middle.at(i), m_.d_model);
  }

  void feed_forward(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    Own<T>& own = part.own;
    Rows<float>& middle = middle_of(l);
    enter(w.mlp_norm, m_.block == kParallel ? h.in : middle, h.mlp_stats, part, h.mlp_in);
    through(w.up, panels(l, kUp), own.in.at(0), own.in.stride, part.count, own.wide.at(0), own.wide.stride);
    if (m_.gated)
      through(w.gate, panels(l, kGate), own.in.at(0), own.in.stride, part.count, own.also.at(0), own.also.stride);
    for (int i = 0; i < part.count; ++i) {
      cast_row(own.wide.at(i), h.up.at(part.first + i), m_.d_ff);
      if (m_.gated) cast_row(own.also.at(i), h.gate.at(part.first + i), m_.d_ff);
      act(h, part.first + i, own.acted.at(i));
    }
    Rows<float>& out = before() ? in_of(l + 1) : h.ended;
    if (adds()) std::memcpy(out.at(part.first), middle.at(part.first), 4 * part.count * out.stride);
    through(w.down, panels(l, kDown), own.acted.at(0), own.acted.stride, part.count, out.at(part.first),
            out.stride, adds());
    if (before()) return;
    for (int i = part.first; i < part.first + part.count; ++i)
      h.mlp_stats[i] = normalise(w.mlp_norm, out.at(i), in_of(l + 1).at(i), m_.d_model);
  }

  void act(Held<T>& h, int token, T* out) {
    const T *up = h.up.at(token), *gate = m_.gated ? h.gate.at(token) : nullptr;
    each(m_.d_ff, [&](int i, int n) {
      const Vec u = take(up + i, n);
      put(out + i, gate ? u * bend(m_.activation, take(gate + i, n)).value : bend(m_.activation, u).value, n);
    });
  }

  // --- the head: the loss, and its gradient down to the last layer

  void learn_head(Team team) {
    clear_norm_sums(team);
    for (int first = 0; first < held_.n; first += held_.chunk) {
      const int count = std::min<int64_t>(held_.chunk, held_.n - first);
      blocks(team, [&](const Part& part) { head_block(first, count, part); }, first, count);
      team.wait();
      learn(m_.head, held_.turned_head, held_.x_head, count, job_->add || first, team);
      team.wait();
    }
    add_norm_sums(m_.final_norm, 0, m_.d_model, team);
  }

  void head_block(int chunk, int n_chunk, const Part& part) {
    Own<T>& own = part.own;
    const int first = part.first, d = m_.d_model;
    for (int i = 0; i < part.count; ++i)
      held_.final_stats[first + i] = normalise(m_.final_norm, held_.last.at(first + i), own.in.at(i), d);
    pack_rows(own.in.at(0), own.in.stride, first - chunk, part.count, d, held_.x_head.data(),
              panel_size<T>(n_chunk));
    through(m_.head, held_.head, own.in.at(0), own.in.stride, part.count, own.wide.at(0), own.wide.stride);
    for (int i = 0; i < part.count; ++i)
      held_.losses[first + i] = next_token_loss(own.wide.at(i), m_.vocab, token_at(first + i, 1), m_.head_factor,
                                                m_.soft_cap, job_->scale / held_.n, own.dy.at(i));
    back_through(m_.head, held_.head, own.dy, part, held_.turned_head, first - chunk, n_chunk, own.narrow);
    for (int i = 0; i < part.count; ++i) {
      std::fill_n(held_.dx.at(first + i), d, 0.0f);
      undo_norm(m_.final_norm, held_.last.at(first + i), held_.final_stats[first + i], own.narrow.at(i),
                held_.dx.at(first + i), 0, part);
    }
  }

  // --- sums of the gradients of norms: one for each block of tokens, added up in their order

  void clear_norm_sums(Team team) {
    if (team.index == 0)
      for (auto& sums : held_.norm_sums) std::fill(sums.begin(), sums.end(), 0.0f);
    team.wait();
  }

  float* norm_sums(int which, int block) {
    return held_.norm_sums[which].data() + int64_t(block) * (held_.norm_sums[which].size() / held_.n_blocks);
  }

  void undo_norm(const TrainedNorm& norm, const float* x, const Stats& s, const float* dy, float* dx,
                 int which, const Part& part) {
    float* sums = norm_sums(which, part.index);
    unnormalise(norm, x, s, dy, dx, m_.d_model, sums, sums + padded(m_.d_model));
  }

  // dx becomes the gradient through a norm that stands on the stream itself.
  void replace_by_norm(const TrainedNorm& norm, const float* x, const Stats& s, float* dx, int which,
                       const Part& part) {
    float* dy = part.own.scratch.at(0);
    std::memcpy(dy, dx, 4 * m_.d_model);
    std::fill_n(dx, m_.d_model, 0.0f);
    undo_norm(norm, x, s, dy, dx, which, part);
  }

  void add_norm_sums(const TrainedNorm& norm, int which, int width, Team team) {
    if (team.index != which % team.size) return;
    for (int half = 0; half < 2; ++half) {
      float* out = half ? norm.d_bias : norm.d_weight;
      if (!out) continue;
      if (!job_->add) std::fill_n(out, width, 0.0f);
      for (int b = 0; b < held_.n_blocks; ++b) add_row(out, norm_sums(which, b) + half * padded(width), width);
    }
  }

  // --- gradients of weights

  // d_weight = or += dy^T x over `count` tokens.
  void learn(const TrainedLinear& w, const Row<T>& turned, const Row<T>& x, int count, bool add, Team team) {
    int first, last;
    span(w.n_out, 16, team, first, last);
    if (first >= last) return;
    const Left<T> dy = Left<T>::turned(turned.data(), count);
    multiply(dy.from(first, 0), last - first, x.data(), panel_size<T>(count), w.n_in, count,
             w.d_weight + int64_t(first) * w.n_in, w.n_in, add);
  }

  // The gradient of a bias: sums over the rows of dy, a block of tokens each, added up in their order.
  void sum_rows(const TrainedLinear& w, Rows<T>& dy, Floats& sums, const Part& part) {
    if (!w.d_bias) return;
    float* to = &sums[part.index * padded(w.n_out)];
    std::fill_n(to, w.n_out, 0.0f);
    for (int i = 0; i < part.count; ++i) add_row(to, dy.at(i), w.n_out);
  }

  void add_bias_sums(const TrainedLinear& w, const Floats& sums) {
    if (!job_->add) std::fill_n(w.d_bias, w.n_out, 0.0f);
    for (int b = 0; b < held_.n_blocks; ++b) add_row(w.d_bias, &sums[b * padded(w.n_out)], w.n_out);
  }

  void learn_layer(int l, Team team) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    const Row<T>* inputs[] = {&h.mixer_in,  &h.mixer_in, &h.mixer_in, &held_.x_out,
                              &h.mlp_in, &h.mlp_in, &held_.x_down};
    for (int place = 0; place < kPlaces; ++place)
      if (const TrainedLinear& linear = linear_at(w, place); linear.weight)
        learn(linear, held_.turned[place], *inputs[place], held_.n, job_->add, team);
    for (int place = team.index; place < kPlaces; place += team.size)
      if (linear_at(w, place).d_bias) add_bias_sums(linear_at(w, place), held_.bias_sums[place]);
    add_norm_sums(w.mixer_norm, 0, m_.d_model, team);
    add_norm_sums(w.mlp_norm, 1, m_.d_model, team);
    add_norm_sums(w.q_norm, 2, m_.d_head, team);
    add_norm_sums(w.k_norm, 3, m_.d_head, team);
    team.wait();
  }

  // --- backward: dx holds the gradient of the stream, at ever earlier places

  void layer_backward(int l, Team team) {
    clear_norm_sums(team);
    blocks(team, [&](const Part& part) {
      back_feed_forward(l, part);
      if (m_.n_heads) back_to_mixer(l, part);
    });
    team.wait();
    if (m_.n_heads) {
      attend(l, team, [&](const Heads<T>& heads, int row, int group) {
        held_.own[team.index]->attention->backward(heads, row, group);
      });
      team.wait();
      blocks(team, [&](const Part& part) { back_from_mixer(l, part); });
      team.wait();
    }
    learn_layer(l, team);
  }

  void back_feed_forward(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    Own<T>& own = part.own;
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float* dx = held_.dx.at(token);
      if (!before()) replace_by_norm(w.mlp_norm, h.ended.at(token), h.mlp_stats[token], dx, 1, part);
      cast_row(dx, own.dy.at(i), m_.d_model);
    }
    back_through(l, kDown, own.dy, part, own.wide);
    for (int i = 0; i < part.count; ++i) back_act(h, part.first + i, i, own);
    keep_panels(own.acted, 0, part, m_.d_ff, held_.x_down);
    back_through(l, kUp, own.dy, part, own.narrow);
    if (m_.gated) back_through(l, kGate, own.d_gate, part, own.narrow, true);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float *dx = held_.dx.at(token), *dy = own.narrow.at(i);
      if (m_.block == kPre) {
        undo_norm(w.mlp_norm, middle_of(l).at(token), h.mlp_stats[token], dy, dx, 1, part);
      } else if (m_.block == kParallel) {
        std::memcpy(held_.also_dx.at(token), dx, 4 * m_.d_model);
        undo_norm(w.mlp_norm, h.in.at(token), h.mlp_stats[token], dy, held_.also_dx.at(token), 1, part);
      } else {
        add_branch(dx, dy);
      }
    }
  }

  void add_branch(float* dx, const float* dy) {
    if (!adds()) std::fill_n(dx, m_.d_model, 0.0f);
    add_row(dx, dy, m_.d_model);
  }

  // From the gradient of what the activation gave out, in `wide`, to those of what went in.
  void back_act(Held<T>& h, int token, int i, Own<T>& own) {
    const T *up = h.up.at(token), *gate = m_.gated ? h.gate.at(token) : nullptr;
    const float* d_out = own.wide.at(i);
    T *out = own.acted.at(i), *d_up = own.dy.at(i), *d_gate = gate ? own.d_gate.at(i) : nullptr;
    each(m_.d_ff, [&](int j, int n) {
      const Vec u = take(up + j, n), d = take(d_out + j, n);
      const Bent b = bend(m_.activation, gate ? take(gate + j, n) : u);
      put(out + j, gate ? u * b.value : b.value, n);
      put(d_up + j, d * (gate ? b.value : b.slope), n);
      if (gate) put(d_gate + j, d * u * b.slope, n);
    });
  }

  void back_to_mixer(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    Own<T>& own = part.own;
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float* dx = held_.dx.at(token);
      if (!before()) replace_by_norm(w.mixer_norm, h.summed.at(token), h.mixer_stats[token], dx, 0, part);
      cast_row(dx, own.dy.at(i), m_.d_model);
    }
    keep_panels(h.mixed, part.first, part, w.out.n_in, held_.x_out);
    back_through(l, kOut, own.dy, part, own.wide);
    for (int i = 0; i < part.count; ++i) cast_row(own.wide.at(i), held_.d_mixed.at(part.first + i), w.out.n_in);
  }

  void back_from_mixer(int l, const Part& part) {
    const TrainedLayer& w = m_.layers[l];
    Held<T>& h = layer(l);
    back_heads(l, kQ, w.q_norm, &h.q_raw, held_.d_q, 2, part);
    back_heads(l, kK, w.k_norm, &h.k_raw, held_.d_k, 3, part);
    back_heads(l, kV, TrainedNorm{}, nullptr, held_.d_v, 0, part);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      float *dx = held_.dx.at(token), *dy = part.own.narrow.at(i);
      if (m_.block == kParallel) std::memcpy(dx, held_.also_dx.at(token), 4 * m_.d_model);
      if (before())
        undo_norm(w.mixer_norm, h.in.at(token), h.mixer_stats[token], dy, dx, 0, part);
      else
        add_branch(dx, dy);
    }
  }

  // From the gradients of queries, keys or values to that of what entered the mixer.
  void back_heads(int l, int place, const TrainedNorm& norm, Rows<T>* raw, Rows<float>& d, int which,
                  const Part& part) {
    const TrainedLinear& w = linear_at(m_.layers[l], place);
    float* sums = norm_sums(which, part.index);
    float *x = part.own.scratch.at(0), *dy = part.own.scratch.at(1), *ignored = part.own.scratch.at(2);
    for (int i = 0; i < part.count; ++i) {
      const int token = part.first + i;
      for (int at = 0; raw && at < w.n_out; at += m_.d_head) {
        float* d_head = d.at(token) + at;
        turn_head(d_head, token, true);
        if (norm.kind == kNoNorm) continue;
        cast_row(raw->at(token) + at, x, m_.d_head);
        std::memcpy(dy, d_head, 4 * m_.d_head);
        std::fill_n(d_head, m_.d_head, 0.0f);
        const Stats s = normalise(norm, x, ignored, m_.d_head);
        unnormalise(norm, x, s, dy, d_head, m_.d_head, sums, sums + padded(m_.d_head));
      }
      cast_row(d.at(token), part.own.dy.at(i), w.n_out);
    }
    back_through(l, place, part.own.dy, part, part.own.narrow, place != kQ);
  }

  // --- the embedding

  void learn_embedding(Team team) {
    const int d = m_.d_model;
    if (m_.embed_norm.kind != kNoNorm) {
      clear_norm_sums(team);
      blocks(team, [&](const Part& part) {
        for (int i = part.first; i < part.first + part.count; ++i)
          replace_by_norm(m_.embed_norm, held_.raw.at(i), held_.embed_stats[i], held_.dx.at(i), 0, part);
      });
      team.wait();
      add_norm_sums(m_.embed_norm, 0, d, team);
    }
    int first, last;
    span(d, 16, team, first, last);
    const int width = last - first;
    if (!job_->add) {
      for (int token = 0; !m_.tied && token < m_.vocab; ++token)
        std::fill_n(m_.d_embed + int64_t(token) * d + first, width, 0.0f);
      for (int t = 0; m_.d_added && t < m_.seq_len; ++t)
        std::fill_n(m_.d_added + int64_t(t) * d + first, width, 0.0f);
    }
    for (int i = 0; i < held_.n; ++i) {
      const float* dx = held_.dx.at(i) + first;
      add_row(m_.d_embed + int64_t(token_at(i, 0)) * d + first, dx, width);
      if (m_.d_added) add_row(m_.d_added + int64_t(i % m_.seq_len) * d + first, dx, width);
    }
  }

  TrainedModel m_;
  Memory<T> held_;
  TrainingJob* job_ = nullptr;
};

}  // namespace
}  // namespace assay

extern "C" {

// What products of bfloat16 are taken with: 0 nothing, 1 vectors, 2 tiles.
int32_t assay_bf16_products() {
#if defined(__AVX512BF16__)
  return assay::in_tiles<assay::BF16>() ? 2 : 1;
#else
  return 0;
#endif
}

// Null if there is no memory for it.
void* assay_pass_new(const TrainedModel* model, int32_t bf16, int32_t n_threads) {
  try {
    if (bf16) return static_cast<assay::AnyPass*>(new assay::Pass<assay::BF16>(*model, n_threads));
    return static_cast<assay::AnyPass*>(new assay::Pass<float>(*model, n_threads));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void assay_pass_free(void* pass) { delete static_cast<assay::AnyPass*>(pass); }

// One job by all threads.
void assay_train(void* pass, TrainingJob* job, int32_t n_threads) {
  assay::together(n_threads, [&](assay::Team team) {
    static_cast<assay::AnyPass*>(pass)->run(*job->model, *job, team);
  });
}

// Each job by one thread, as many at a time as there are passes.
void assay_train_apart(void** passes, int32_t n_passes, TrainingJob* jobs, int32_t n_jobs) {
  std::atomic<int> next{0};
  assay::together(n_passes, [&](assay::Team team) {
    for (int i; (i = next.fetch_add(1)) < n_jobs;)
      static_cast<assay::AnyPass*>(passes[team.index])->run(*jobs[i].model, jobs[i], {0, 1, nullptr});
  });
}
}
