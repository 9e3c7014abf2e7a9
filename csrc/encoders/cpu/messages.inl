// The loops of messages.h, compiled once for each instruction set.

static void attention_loop(const EncoderEdges& edges, int64_t begin, int64_t end, const AttentionInputs& in,
                           float* scalars, float* vectors) {
  const int64_t width = in.width, groups = width / 16;
  Lanes attention[kMostEncoderGroups], filters[4 * kMostEncoderGroups];
  for (int64_t e = begin; e < end; ++e) {
    const int64_t i = edges.receivers[e], j = edges.senders[e];
    const float *receiver = in.node + 5 * width * i, *sender = in.node + 5 * width * j + width;
    const float *carried = in.vectors + 3 * width * j, *u = edges.directions + 3 * e;
    if (e == begin || edges.places[e] != edges.places[e - 1]) {
      const EdgeFilter at = edge_filter(in.filters, edges.places[e]);
      for (int64_t g = 0; g < 4 * groups; ++g) filters[g] = filter(in.filters, at, 16 * g);
    }
    for (int64_t g = 0; g < groups; ++g) {
      attention[g] = load(receiver + 16 * g) * load(sender + 16 * g) * filters[g];
    }
    sum_heads(attention, groups, in.head_width);
    float *to_scalars = scalars + width * i, *to_vectors = vectors + 3 * width * i;
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t c = 16 * g;
      const Lanes weight = activated(attention[g]) * edges.envelope[e];
      add_to(to_scalars + c, load(sender + width + c) * filters[groups + g] * weight);
      const Lanes scale = load(sender + 2 * width + c) * filters[2 * groups + g];
      const Lanes along = load(sender + 3 * width + c) * filters[3 * groups + g];
      for (int d = 0; d < 3; ++d) {
        add_to(to_vectors + d * width + c, load(carried + d * width + c) * scale + along * u[d]);
      }
    }
  }
}

// The message of an edge, from its filters, added to the receiver's scalars.
INLINE void edge_message(const EncoderEdges& edges, int64_t e, const EdgeLayerInputs& in, const float* filters,
                         float* message, float* scalars) {
  const int64_t width = in.width, groups = width / 16;
  const float *receiver = in.node + 3 * width * edges.receivers[e];
  const float *sender = in.node + 3 * width * edges.senders[e] + width;
  float* to = scalars + width * edges.receivers[e];
  Lanes attention[kMostEncoderGroups];
  for (int64_t g = 0; g < groups; ++g) {
    attention[g] = load(receiver + 16 * g) * load(sender + 16 * g) * activated(load(filters + 16 * g));
  }
  sum_heads(attention, groups, in.head_width);
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t c = 16 * g;
    const Lanes weight = activated(attention[g]) * edges.envelope[e];
    const Lanes value = load(sender + width + c) * activated(load(filters + width + c)) * weight;
    store(message + c, value);
    add_to(to + c, value);
  }
}

// What an edge carries to the receiver's vectors, by the message's scales, and its own change by the last filters.
INLINE void edge_vectors(const EncoderEdges& edges, int64_t e, const EdgeLayerInputs& in, const float* filters,
                         const float* scales, float* vectors, float* changed) {
  const int64_t width = in.width, i = edges.receivers[e], j = edges.senders[e];
  const float *carried = in.vectors + 3 * width * j, *u = edges.directions + 3 * e;
  float* to = vectors + 3 * width * i;
  const float late = in.smooth ? late_cutoff(edges.envelope[e]) : 1.f;
  for (int64_t c = 0; c < width; c += 16) {
    const Lanes scale = activated(load(scales + c)) * late, along = activated(load(scales + width + c)) * late;
    for (int d = 0; d < 3; ++d) add_to(to + d * width + c, load(carried + d * width + c) * scale + along * u[d]);
    if (in.mixed == nullptr) continue;
    // (a - (a u) u) (b - (b u) u) for a unit vector u or zero.
    const float* target = in.mixed + 15 * width * i + 3 * width + c;
    const float* source = in.mixed + 15 * width * j + 4 * width + c;
    Lanes product = fill(0.f), a = fill(0.f), b = fill(0.f);
    for (int d = 0; d < 3; ++d) {
      const Lanes first = load(target + 5 * d * width), second = load(source + 5 * d * width);
      product += first * second;
      a += first * u[d];
      b += second * u[d];
    }
    const Lanes gate = activated(load(filters + 2 * width + c));
    store(changed + width * e + c, load(in.edges + width * e + c) + gate * (product - a * b));
  }
}

static void edge_layer_loop(const EncoderEdges& edges, int64_t begin, int64_t end, const EdgeLayerInputs& in,
                            float* scratch, float* scalars, float* vectors, float* changed) {
  float *filters = scratch, *messages = filters + kEdgesPerBlock * in.filter_width;
  float* scales = messages + kEdgesPerBlock * in.width;
  for (int64_t start = begin; start < end; start += kEdgesPerBlock) {
    const int64_t count = end - start < kEdgesPerBlock ? end - start : kEdgesPerBlock;
    const float* rows = in.edges + in.width * start;
    linear_map(rows, count, in.width, in.filter_weight, in.filter_bias, in.filter_width, filters);
    for (int64_t k = 0; k < count; ++k) {
      edge_message(edges, start + k, in, filters + k * in.filter_width, messages + k * in.width, scalars);
    }
    linear_map(messages, count, in.width, in.spread_weight, in.spread_bias, 2 * in.width, scales);
    for (int64_t k = 0; k < count; ++k) {
      edge_vectors(edges, start + k, in, filters + k * in.filter_width, scales + 2 * k * in.width, vectors, changed);
    }
  }
}

static void tensors_loop(const EncoderEdges& edges, int64_t begin, int64_t end, const TensorInputs& in, float* parts) {
  const int64_t width = in.width;
  for (int64_t e = begin; e < end; ++e) {
    const int64_t i = edges.receivers[e], j = edges.senders[e];
    const EdgeFilter at = edge_filter(in.filters, edges.places[e]);
    float* to = parts + 9 * width * i;
    if (in.parts != nullptr) {
      const float* from = in.parts + 9 * width * j;
      for (int64_t c = 0; c < width; c += 16) {
        Lanes filters[3];
        for (int64_t part = 0; part < 3; ++part) filters[part] = filter(in.filters, at, part * width + c);
        for (int m = 0; m < 9; ++m) add_to(to + m * width + c, load(from + m * width + c) * filters[part_of(m)]);
      }
      continue;
    }
    float shape[9];
    direction_tensor(edges.directions + 3 * e, shape);
    for (int64_t c = 0; c < width; c += 16) {
      const Lanes pair = load(in.receiver + width * i + c) + load(in.sender + width * j + c);
      Lanes filters[3];
      for (int64_t part = 0; part < 3; ++part) filters[part] = pair * filter(in.filters, at, part * width + c);
      for (int m = 0; m < 9; ++m) add_to(to + m * width + c, filters[part_of(m)] * shape[m]);
    }
  }
}

template <TensorFormula kFormula>
static void atoms_loop(const TensorAtoms& in, int64_t begin, int64_t end, float* parts) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t c = 0; c < in.width; c += 16) {
      const int64_t at = 9 * in.width * i + c;
      Lanes p[9];
      tensor_formula<kFormula>(in.first + at, in.second + at, in.width, p);
      for (int m = 0; m < 9; ++m) store(parts + at + m * in.width, p[m]);
    }
  }
}

static void filters_loop(const double* places, int64_t begin, int64_t end, const FilterTable& table, float* values) {
  for (int64_t e = begin; e < end; ++e) {
    const EdgeFilter at = edge_filter(table, places[e]);
    for (int64_t c = 0; c < table.channels; c += 16) store(values + table.channels * e + c, filter(table, at, c));
  }
}
