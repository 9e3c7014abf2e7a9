// The loops of atom_layers.h; included once for each instruction set, inside a namespace of its own.

#include "base/cpu/matrix_product.inl"
#include "base/cpu/normalized_rows.inl"
#include "vector_gamd/cpu/pair_loops.inl"

// ---- the first round of messages ------------------------------------------------------------------------------------

// The atoms' features are those of their species: what SiLU takes is a spline and a constant of both, the same in both
// directions where the species are.
template <bool kGradients>
INLINE void first_activations(const FirstMessages& in, const RadialEdge& edge, int64_t i, int64_t j, int64_t channel,
                              Activated (&activated)[2]) {
  const int64_t wide = 3 * in.width;
  const Lanes z = spline(in.table, edge, edge.weight, channel);
  for (int to = 0; to < 2; ++to) {
    if (to == 1 && i == j) {
      activated[1] = activated[0];
      break;
    }
    const int64_t receiver = to ? j : i, sender = to ? i : j;
    const Lanes here = z + load(in.constants + (receiver * in.species + sender) * wide + channel);
    if (kGradients) {
      activated[to] = silu(here);
    } else {
      activated[to].value = here * sigmoid(here);
    }
  }
}

static void first_messages_loop(const PreparedEdges& pairs, int64_t begin, int64_t end, const FirstMessages& in,
                                float* scalars, float* vectors) {
  const int64_t width = in.width;
  for (int64_t k = begin; k < end; ++k) {
    RadialEdge edge;
    read_edge(pairs, k, in.table, edge);
    const int64_t atom[2] = {pairs.i(k), pairs.j(k)}, species[2] = {in.of_atoms[atom[0]], in.of_atoms[atom[1]]};
    for (int64_t f = 0; f < width; f += 16) {
      Activated message[2], along[2];
      first_activations<false>(in, edge, species[0], species[1], f, message);
      first_activations<false>(in, edge, species[0], species[1], width + f, along);
      for (int to = 0; to < 2; ++to) {
        add_to(scalars + atom[to] * width + f,
               message[to].value * edge.envelope * load(in.value + species[1 - to] * width + f));
        const Lanes length = along[to].value * (to ? -edge.envelope : edge.envelope);
        for (int d = 0; d < 3; ++d) add_to(vectors + (3 * atom[to] + d) * width + f, length * edge.u[d]);
      }
    }
  }
}

static void first_gradients_loop(const PreparedEdges& pairs, int64_t begin, int64_t end, const FirstMessages& in,
                                 const float* scalars, const float* vectors, float* pair_vectors) {
  const int64_t width = in.width;
  for (int64_t k = begin; k < end; ++k) {
    RadialEdge edge;
    read_edge(pairs, k, in.table, edge);
    const int64_t atom[2] = {pairs.i(k), pairs.j(k)}, species[2] = {in.of_atoms[atom[0]], in.of_atoms[atom[1]]};
    Lanes du[3] = {Lanes{}, Lanes{}, Lanes{}}, dr = Lanes{};
    for (int64_t f = 0; f < width; f += 16) {
      Activated message[2], along[2];
      first_activations<true>(in, edge, species[0], species[1], f, message);
      first_activations<true>(in, edge, species[0], species[1], width + f, along);
      Lanes of_message = Lanes{}, of_along = Lanes{};  // gradients by what SiLU takes, and by the envelope
      Lanes of_envelope = Lanes{};
      for (int to = 0; to < 2; ++to) {
        const Lanes incoming = load(scalars + atom[to] * width + f) * load(in.value + species[1 - to] * width + f);
        Lanes projection = Lanes{};
        for (int d = 0; d < 3; ++d) {
          const Lanes gradient = load(vectors + (3 * atom[to] + d) * width + f);
          projection += gradient * (to ? -edge.u[d] : edge.u[d]);
          du[d] += along[to].value * gradient * (to ? -edge.envelope : edge.envelope);
        }
        of_message += incoming * message[to].slope;
        of_along += projection * along[to].slope;
        of_envelope += incoming * message[to].value + projection * along[to].value;
      }
      dr += of_envelope * edge.envelope_slope +
            (of_message * spline(in.table, edge, edge.slope, f) +
             of_along * spline(in.table, edge, edge.slope, width + f)) * edge.envelope;
    }
    add_vector_gradient(pair_vectors + 3 * k, edge, du, dr);
  }
}

// ---- atoms ----------------------------------------------------------------------------------------------------------

// Maps rows [begin, end).
INLINE void map_rows(const LinearWeights& map, const float* rows, int64_t begin, int64_t end, int64_t depth,
                     int64_t columns, float* to) {
  linear_map_of_panels(rows + begin * depth, end - begin, depth, map.forth, map.bias, columns, to + begin * columns);
}

INLINE void add_map_of_rows(const LinearWeights& map, const float* rows, int64_t begin, int64_t end, int64_t depth,
                            int64_t columns, float* to) {
  add_linear_map_of_panels(rows + begin * depth, end - begin, depth, map.forth, columns, to + begin * columns);
}

// Adds the gradients (inputs) of a map from those of its results (outputs).
INLINE void add_back(const LinearWeights& map, const float* rows, int64_t begin, int64_t end, int64_t outputs,
                     int64_t inputs, float* to) {
  add_linear_map_of_panels(rows + begin * outputs, end - begin, outputs, map.back, inputs, to + begin * inputs);
}

INLINE void clear_rows(float* rows, int64_t begin, int64_t end, int64_t width) {
  for (int64_t n = begin * width; n < end * width; ++n) rows[n] = 0;
}

static void prepare_loop(const LayerWeights& weights, const LayerState& state, int64_t begin, int64_t end) {
  const int64_t width = state.width;
  float* hidden = state.length;  // which is written later
  normalize_loop(state.scalars, begin, end, width, weights.norm, hidden);
  map_rows(weights.source, hidden, begin, end, width, 3 * width, state.source);
  map_rows(weights.target, hidden, begin, end, width, 3 * width, state.target);
  map_rows(weights.value, hidden, begin, end, width, width, state.value);
  map_rows(weights.self, hidden, begin, end, width, width, state.update);
  if (state.vectors == nullptr) return;
  map_rows(weights.probe, state.vectors, 3 * begin, 3 * end, width, width, state.probe);
  map_rows(weights.carried, state.vectors, 3 * begin, 3 * end, width, width, state.carried);
}

static void update_loop(const LayerWeights& weights, const LayerState& state, int64_t begin, int64_t end,
                        float* scalars, float* vectors) {
  const int64_t width = state.width;
  map_rows(weights.length, state.vector_sums, 3 * begin, 3 * end, width, width, state.lengths);
  map_rows(weights.out, state.vector_sums, 3 * begin, 3 * end, width, width, state.outs);
  for (int64_t a = begin; a < end; ++a) {
    const float *x = state.lengths + 3 * a * width, *y = x + width, *z = y + width;
    float* length = state.length + a * width;
    for (int64_t c = 0; c < width; ++c) length[c] = std::sqrt(x[c] * x[c] + y[c] * y[c] + z[c] * z[c] + 1e-2f);
  }
  add_map_of_rows(weights.sum, state.sums, begin, end, width, width, state.update);
  add_map_of_rows(weights.reach, state.length, begin, end, width, width, state.update);
  for (int64_t n = begin * width; n < end * width; n += 16) {
    const Lanes x = load(state.update + n);
    store(scalars + n, x * sigmoid(x));
  }
  map_rows(weights.change, scalars, begin, end, width, 2 * width, state.change);
  for (int64_t a = begin; a < end; ++a) {
    for (int64_t c = 0; c < width; c += 16) {
      const int64_t at = a * width + c;
      store(scalars + at, load(state.scalars + at) + load(state.change + 2 * a * width + c));
      const Lanes gate = load(state.change + (2 * a + 1) * width + c) + 1.f;
      for (int d = 0; d < 3; ++d) {
        const int64_t of_vector = (3 * a + d) * width + c;
        const Lanes change = load(state.outs + of_vector) * gate;
        store(vectors + of_vector, state.vectors == nullptr ? change : load(state.vectors + of_vector) + change);
      }
    }
  }
}

static void update_back_loop(const LayerWeights& weights, const LayerState& state, int64_t begin, int64_t end,
                             const LayerGradients& out) {
  const int64_t width = state.width;
  for (int64_t a = begin; a < end; ++a) {
    for (int64_t c = 0; c < width; c += 16) {
      const Lanes gate = load(state.change + (2 * a + 1) * width + c) + 1.f;
      Lanes of_gate = Lanes{};
      for (int d = 0; d < 3; ++d) {
        const int64_t at = (3 * a + d) * width + c;
        const Lanes gradient = load(out.vectors + at);
        of_gate += gradient * load(state.outs + at);
        store(out.outs + at, gradient * gate);
      }
      store(out.change + 2 * a * width + c, load(out.scalars + a * width + c));
      store(out.change + (2 * a + 1) * width + c, of_gate);
    }
  }
  clear_rows(out.update, begin, end, width);
  add_back(weights.change, out.change, begin, end, 2 * width, width, out.update);
  for (int64_t n = begin * width; n < end * width; n += 16) {
    store(out.update + n, load(out.update + n) * silu(load(state.update + n)).slope);
  }
  clear_rows(out.sums, begin, end, width);
  clear_rows(out.length, begin, end, width);
  clear_rows(out.vector_sums, 3 * begin, 3 * end, width);
  add_back(weights.sum, out.update, begin, end, width, width, out.sums);
  add_back(weights.reach, out.update, begin, end, width, width, out.length);
  for (int64_t a = begin; a < end; ++a) {
    const float *length = state.length + a * width, *gradient = out.length + a * width;
    for (int64_t d = 3 * a; d < 3 * a + 3; ++d) {
      const float* from = state.lengths + d * width;
      float* to = out.lengths + d * width;
      for (int64_t c = 0; c < width; ++c) to[c] = gradient[c] * from[c] / length[c];
    }
  }
  add_back(weights.length, out.lengths, 3 * begin, 3 * end, width, width, out.vector_sums);
  add_back(weights.out, out.outs, 3 * begin, 3 * end, width, width, out.vector_sums);
}

static void prepare_back_loop(const LayerWeights& weights, const LayerState& state, int64_t begin, int64_t end,
                              const LayerGradients& out) {
  const int64_t width = state.width;
  clear_rows(out.hidden, begin, end, width);
  add_back(weights.source, out.source, begin, end, 3 * width, width, out.hidden);
  add_back(weights.target, out.target, begin, end, 3 * width, width, out.hidden);
  add_back(weights.value, out.value, begin, end, width, width, out.hidden);
  add_back(weights.self, out.update, begin, end, width, width, out.hidden);
  normalize_back_loop(state.scalars, begin, end, width, weights.norm, out.hidden, out.scalars);
  add_back(weights.probe, out.probe, 3 * begin, 3 * end, width, width, out.vectors);
  add_back(weights.carried, out.carried, 3 * begin, 3 * end, width, width, out.vectors);
}

static void decode_loop(const DecoderWeights& weights, const DecoderState& state, int64_t begin, int64_t end) {
  const int64_t width = state.width;
  normalize_loop(state.scalars, begin, end, width, weights.norm, state.hidden);
  map_rows(weights.total, state.hidden, begin, end, width, width, state.total);
  map_rows(weights.left, state.hidden, begin, end, width, width, state.left);
  map_rows(weights.probe, state.vectors, 3 * begin, 3 * end, width, width, state.probe);
}

static void decode_back_loop(const DecoderWeights& weights, const DecoderState& state, int64_t begin, int64_t end,
                             const LayerGradients& out) {
  const int64_t width = state.width;
  clear_rows(out.hidden, begin, end, width);
  clear_rows(out.scalars, begin, end, width);
  clear_rows(out.vectors, 3 * begin, 3 * end, width);
  add_back(weights.total, out.source, begin, end, width, width, out.hidden);
  add_back(weights.left, out.target, begin, end, width, width, out.hidden);
  normalize_back_loop(state.scalars, begin, end, width, weights.norm, out.hidden, out.scalars);
  add_back(weights.probe, out.probe, 3 * begin, 3 * end, width, width, out.vectors);
}

static const ForceKernels kernels{
    &first_messages_loop, &first_gradients_loop, &messages_loop<true, PreparedEdges>,
    &message_gradients_loop<true, true, false, PreparedEdges>, &strengths_loop<PreparedEdges>,
    &strength_gradients_loop<true, false, true, PreparedEdges>, &prepare_loop, &update_loop, &update_back_loop,
    &prepare_back_loop, &decode_loop, &decode_back_loop};
