// The loops of gradients.h, compiled once for each instruction set.

// The filters of an edge, with what their gradients need.
template <bool kTable, bool kGeometry>
struct FilterGradient {
  const FilterTable& table;
  EdgeFilter at, slope;
  float* row;    // where the table's gradient gathers
  Lanes place;

  inline __attribute__((always_inline)) FilterGradient(const FilterTable& given, double in_knots, float* gradient)
      : table(given), at(edge_filter(given, in_knots)), row(kTable ? gradient + at.row : nullptr), place(fill(0.f)) {
    if (kGeometry) slope = filter_slopes(given, in_knots);
  }

  inline __attribute__((always_inline)) Lanes filter_at(int64_t channel) const { return filter(table, at, channel); }

  // Takes in the gradient of 16 filters.
  inline __attribute__((always_inline)) void add(int64_t channel, Lanes gradient) {
    if (kTable) {
      for (int m = 0; m < 4; ++m) add_to(row + m * table.channels + channel, gradient * at.weight[m]);
    }
    if (kGeometry) place += gradient * filter(table, slope, channel);
  }
};

template <bool kTable, bool kGeometry, bool kAtoms>
static void attention_gradient_edges(const EncoderEdges& edges, int64_t begin, int64_t end, const AttentionInputs& in,
                                     const AttentionGradients& out) {
  const int64_t width = in.width, groups = width / 16;
  Lanes attention[kMostEncoderGroups], key_filters[kMostEncoderGroups], agreement[kMostEncoderGroups];
  for (int64_t e = begin; e < end; ++e) {
    const int64_t i = edges.receivers[e], j = edges.senders[e];
    const float *receiver = in.node + 5 * width * i, *sender = in.node + 5 * width * j + width;
    const float *carried = in.vectors + 3 * width * j, *u = edges.directions + 3 * e;
    const float *from_scalars = out.from_scalars + width * i, *from_vectors = out.from_vectors + 3 * width * i;
    float* to_receiver = kAtoms ? out.node + 5 * width * i : nullptr;
    float* to_sender = kAtoms ? out.node + 5 * width * j + width : nullptr;
    float* to_carried = kAtoms ? out.carried + 3 * width * j : nullptr;
    const float envelope = edges.envelope[e];
    FilterGradient<kTable, kGeometry> knot(in.filters, edges.places[e], out.table);
    for (int64_t g = 0; g < groups; ++g) {
      key_filters[g] = knot.filter_at(16 * g);
      attention[g] = load(receiver + 16 * g) * load(sender + 16 * g) * key_filters[g];
    }
    sum_heads(attention, groups, in.head_width);
    Lanes to_envelope = fill(0.f), to_direction[3] = {fill(0.f), fill(0.f), fill(0.f)};
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t c = 16 * g;
      const Activated active = silu(attention[g]);
      const Lanes from = load(from_scalars + c), value = load(sender + width + c);
      const Lanes value_filter = knot.filter_at(width + c);
      const Lanes to_attention = from * value * value_filter;  // by channel; the sum over the head comes below
      if (kGeometry) to_envelope += to_attention * active.value;
      agreement[g] = to_attention;
      attention[g] = active.slope * envelope;
      const Lanes weighted = from * active.value * envelope;
      if (kAtoms) add_to(to_sender + width + c, weighted * value_filter);
      knot.add(width + c, weighted * value);

      const Lanes scale = load(sender + 2 * width + c), along = load(sender + 3 * width + c);
      const Lanes scale_filter = knot.filter_at(2 * width + c), along_filter = knot.filter_at(3 * width + c);
      const Lanes filtered_scale = scale * scale_filter, filtered_along = along * along_filter;
      Lanes to_scale = fill(0.f), to_along = fill(0.f);
      for (int d = 0; d < 3; ++d) {
        const Lanes vector = load(from_vectors + d * width + c);
        to_scale += vector * load(carried + d * width + c);
        to_along += vector * u[d];
        if (kAtoms) add_to(to_carried + d * width + c, vector * filtered_scale);
        if (kGeometry) to_direction[d] += vector * filtered_along;
      }
      if (kAtoms) {
        add_to(to_sender + 2 * width + c, to_scale * scale_filter);
        add_to(to_sender + 3 * width + c, to_along * along_filter);
      }
      knot.add(2 * width + c, to_scale * scale);
      knot.add(3 * width + c, to_along * along);
    }
    sum_heads(agreement, groups, in.head_width);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t c = 16 * g;
      const Lanes to_product = agreement[g] * attention[g], query = load(receiver + c), key = load(sender + c);
      if (kAtoms) {
        add_to(to_receiver + c, to_product * key * key_filters[g]);
        add_to(to_sender + c, to_product * query * key_filters[g]);
      }
      knot.add(c, to_product * query * key);
    }
    if (kGeometry) {
      for (int d = 0; d < 3; ++d) out.directions[3 * e + d] = sum(to_direction[d]);
      out.envelope[e] = sum(to_envelope);
      out.places[e] = sum(knot.place);
    }
  }
}

// As attention_gradient_edges without a table, for gradients along several directions, which follow each other in each
// array: what does not depend on them is computed once for an edge.
template <bool kAtoms>
static void attention_direction_edges(const EncoderEdges& edges, int64_t begin, int64_t end, const AttentionInputs& in,
                                      int64_t atoms, int64_t directions, const AttentionGradients& out) {
  const int64_t width = in.width, groups = width / 16;
  Lanes attention[kMostEncoderGroups], slopes[kMostEncoderGroups], agreement[kMostEncoderGroups];
  Lanes filters[4][kMostEncoderGroups], changes[4][kMostEncoderGroups];
  for (int64_t e = begin; e < end; ++e) {
    const int64_t i = edges.receivers[e], j = edges.senders[e];
    const float *receiver = in.node + 5 * width * i, *sender = in.node + 5 * width * j + width;
    const float *carried = in.vectors + 3 * width * j, *u = edges.directions + 3 * e;
    const float envelope = edges.envelope[e];
    if (e == begin || edges.places[e] != edges.places[e - 1]) {
      const EdgeFilter at = edge_filter(in.filters, edges.places[e]), slope = filter_slopes(in.filters, edges.places[e]);
      for (int64_t g = 0; g < groups; ++g) {
        for (int64_t k = 0; k < 4; ++k) {
          filters[k][g] = filter(in.filters, at, k * width + 16 * g);
          changes[k][g] = filter(in.filters, slope, k * width + 16 * g);
        }
      }
    }
    for (int64_t g = 0; g < groups; ++g) attention[g] = load(receiver + 16 * g) * load(sender + 16 * g) * filters[0][g];
    sum_heads(attention, groups, in.head_width);
    for (int64_t g = 0; g < groups; ++g) {
      const Activated active = silu(attention[g]);
      attention[g] = active.value;
      slopes[g] = active.slope * envelope;
    }
    for (int64_t m = 0; m < directions; ++m) {
      const int64_t first = m * atoms;
      const float *from_scalars = out.from_scalars + width * (first + i), *from_vectors = out.from_vectors + 3 * width * (first + i);
      float* to_receiver = kAtoms ? out.node + 5 * width * (first + i) : nullptr;
      float* to_sender = kAtoms ? out.node + 5 * width * (first + j) + width : nullptr;
      float* to_carried = kAtoms ? out.carried + 3 * width * (first + j) : nullptr;
      Lanes to_envelope = fill(0.f), place = fill(0.f), to_direction[3] = {fill(0.f), fill(0.f), fill(0.f)};
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t c = 16 * g;
        const Lanes from = load(from_scalars + c), value = load(sender + width + c);
        const Lanes to_attention = from * value * filters[1][g];  // by channel; the sum over the head comes below
        to_envelope += to_attention * attention[g];
        agreement[g] = to_attention;
        const Lanes weighted = from * attention[g] * envelope;
        if (kAtoms) add_to(to_sender + width + c, weighted * filters[1][g]);
        place += weighted * value * changes[1][g];

        const Lanes scale = load(sender + 2 * width + c), along = load(sender + 3 * width + c);
        const Lanes filtered_scale = scale * filters[2][g], filtered_along = along * filters[3][g];
        Lanes to_scale = fill(0.f), to_along = fill(0.f);
        for (int d = 0; d < 3; ++d) {
          const Lanes vector = load(from_vectors + d * width + c);
          to_scale += vector * load(carried + d * width + c);
          to_along += vector * u[d];
          if (kAtoms) add_to(to_carried + d * width + c, vector * filtered_scale);
          to_direction[d] += vector * filtered_along;
        }
        if (kAtoms) {
          add_to(to_sender + 2 * width + c, to_scale * filters[2][g]);
          add_to(to_sender + 3 * width + c, to_along * filters[3][g]);
        }
        place += to_scale * scale * changes[2][g];
        place += to_along * along * changes[3][g];
      }
      sum_heads(agreement, groups, in.head_width);
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t c = 16 * g;
        const Lanes to_product = agreement[g] * slopes[g], query = load(receiver + c), key = load(sender + c);
        if (kAtoms) {
          add_to(to_receiver + c, to_product * key * filters[0][g]);
          add_to(to_sender + c, to_product * query * filters[0][g]);
        }
        place += to_product * query * key * changes[0][g];
      }
      const int64_t to = m * edges.count + e;
      for (int d = 0; d < 3; ++d) out.directions[3 * to + d] = sum(to_direction[d]);
      out.envelope[to] = sum(to_envelope);
      out.places[to] = sum(place);
    }
  }
}

static void attention_direction_loop(const EncoderEdges& edges, int64_t begin, int64_t end, const AttentionInputs& in,
                                     int64_t atoms, int64_t directions, const AttentionGradients& out) {
  (out.node != nullptr ? attention_direction_edges<true> : attention_direction_edges<false>)(edges, begin, end, in, atoms,
                                                                                            directions, out);
}

static void attention_gradient_loop(const EncoderEdges& edges, int64_t begin, int64_t end, const AttentionInputs& in,
                                    const AttentionGradients& out) {
  const bool table = out.table != nullptr, geometry = out.directions != nullptr, atoms = out.node != nullptr;
  const auto loop =
      !atoms ? attention_gradient_edges<false, true, false>
      : table ? (geometry ? attention_gradient_edges<true, true, true> : attention_gradient_edges<true, false, true>)
              : (geometry ? attention_gradient_edges<false, true, true> : attention_gradient_edges<false, false, true>);
  loop(edges, begin, end, in, out);
}

template <bool kTable, bool kGeometry>
static void tensor_gradient_edges(const EncoderEdges& edges, int64_t begin, int64_t end, const TensorInputs& in,
                                  const TensorGradients& out) {
  const int64_t width = in.width;
  for (int64_t e = begin; e < end; ++e) {
    const int64_t i = edges.receivers[e], j = edges.senders[e];
    FilterGradient<kTable, kGeometry> knot(in.filters, edges.places[e], out.table);
    const float* from = out.sums + 9 * width * i;
    if (in.parts != nullptr) {
      const float* parts = in.parts + 9 * width * j;
      float* to = out.sender + 9 * width * j;
      for (int64_t c = 0; c < width; c += 16) {
        Lanes filters[3], changes[3] = {fill(0.f), fill(0.f), fill(0.f)};
        for (int64_t p = 0; p < 3; ++p) filters[p] = knot.filter_at(p * width + c);
        for (int64_t m = 0; m < 9; ++m) {
          const Lanes sum = load(from + m * width + c);
          changes[part_of(m)] += sum * load(parts + m * width + c);
          add_to(to + m * width + c, sum * filters[part_of(m)]);
        }
        for (int64_t p = 0; p < 3; ++p) knot.add(p * width + c, changes[p]);
      }
    } else {
      const float* u = edges.directions + 3 * e;
      float shape[9];
      direction_tensor(u, shape);
      Lanes of_shape[9];
      for (int64_t m = 0; m < 9; ++m) of_shape[m] = fill(0.f);
      for (int64_t c = 0; c < width; c += 16) {
        const Lanes pair = load(in.receiver + width * i + c) + load(in.sender + width * j + c);
        Lanes along[3] = {fill(0.f), fill(0.f), fill(0.f)}, filters[3], of_pair = fill(0.f);
        for (int64_t p = 0; p < 3; ++p) filters[p] = knot.filter_at(p * width + c);
        for (int64_t m = 0; m < 9; ++m) {
          const Lanes sum = load(from + m * width + c);
          along[part_of(m)] += sum * shape[m];
          if (kGeometry) of_shape[m] += sum * pair * filters[part_of(m)];
        }
        for (int64_t p = 0; p < 3; ++p) {
          of_pair += along[p] * filters[p];
          knot.add(p * width + c, along[p] * pair);
        }
        add_to(out.receiver + width * i + c, of_pair);
        add_to(out.sender + width * j + c, of_pair);
      }
      if (kGeometry) {
        float g[9];
        for (int64_t m = 0; m < 9; ++m) g[m] = sum(of_shape[m]);
        const float trace = 2.f / 3.f * (g[4] + g[7]);
        float* to = out.directions + 3 * e;
        to[0] = g[1] + (2.f * g[4] - trace) * u[0] + g[5] * u[1] + g[6] * u[2];
        to[1] = g[2] + (2.f * g[7] - trace) * u[1] + g[5] * u[0] + g[8] * u[2];
        to[2] = g[3] - trace * u[2] + g[6] * u[0] + g[8] * u[1];
      }
    }
    if (kGeometry) out.places[e] = sum(knot.place);
  }
}

static void tensor_gradient_loop(const EncoderEdges& edges, int64_t begin, int64_t end, const TensorInputs& in,
                                 const TensorGradients& out) {
  const bool table = out.table != nullptr, geometry = out.places != nullptr;
  const auto loop = table ? (geometry ? tensor_gradient_edges<true, true> : tensor_gradient_edges<true, false>)
                          : (geometry ? tensor_gradient_edges<false, true> : tensor_gradient_edges<false, false>);
  loop(edges, begin, end, in, out);
}

static void activate_loop(const ActivatedRows& in, int64_t begin, int64_t end, float* table) {
  for (int64_t k = begin; k < end; ++k) {
    const float* row = in.rows + 2 * in.channels * k;
    float* to = table + 2 * in.channels * k;
    for (int64_t c = 0; c < in.channels; c += 16) {
      const Activated active = silu(load(row + c) + load(in.bias + c));
      store(to + c, active.value);
      store(to + in.channels + c, active.slope * load(row + in.channels + c));
    }
  }
}

static void activate_back_loop(const ActivatedRows& in, int64_t begin, int64_t end, float* rows, float* bias) {
  for (int64_t k = begin; k < end; ++k) {
    const int64_t at = 2 * in.channels * k;
    const float *row = in.rows + at, *from = in.gradient + at;
    for (int64_t c = 0; c < in.channels; c += 16) {
      const Lanes x = load(row + c) + load(in.bias + c), s = sigmoid(x), rest = 1.f - s;
      const Lanes slope = s * (1.f + x * rest), curvature = s * rest * (2.f + x * (rest - s));
      const Lanes of_slope = load(from + in.channels + c);
      const Lanes change = load(from + c) * slope + of_slope * load(row + in.channels + c) * curvature;
      store(rows + at + c, change);
      store(rows + at + in.channels + c, of_slope * slope);
      add_to(bias + c, change);
    }
  }
}
