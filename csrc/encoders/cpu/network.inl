// The loops of network.h, compiled once for each instruction set.

static void multiply_loop(const float* rows, int64_t begin, int64_t end, int64_t depth, const float* weight,
                          const float* bias, int64_t columns, float* to) {
  static const float zeros[5 * 16 * kMostEncoderGroups] = {};
  linear_map_of_panels(rows + depth * begin, end - begin, depth, weight, bias != nullptr ? bias : zeros, columns,
                       to + columns * begin);
}

static void update_loop(const AttentionState& in, int64_t begin, int64_t end, float* scalars, float* vectors) {
  const int64_t width = in.width;
  for (int64_t i = begin; i < end; ++i) {
    const float *mixed = in.mixed() + 9 * width * i, *gates = in.gates() + 3 * width * i;
    for (int64_t c = 0; c < width; c += 16) {
      const Lanes gate = load(gates + c);
      Lanes product = fill(0.f);
      for (int d = 0; d < 3; ++d) {
        const float* m = mixed + 3 * width * d + c;
        const int64_t at = 3 * width * i + width * d + c;
        product += load(m) * load(m + width);
        add_to(vectors + at, load(in.vectors() + at) + load(m + 2 * width) * gate);
      }
      const int64_t at = width * i + c;
      store(scalars + at, load(in.scalars() + at) + product * load(gates + width + c) + load(gates + 2 * width + c));
    }
  }
}

static void update_back_loop(const AttentionState& in, int64_t begin, int64_t end, const float* scalars,
                             const float* vectors, float* to_mixed, float* to_gates) {
  const int64_t width = in.width;
  for (int64_t i = begin; i < end; ++i) {
    const float *mixed = in.mixed() + 9 * width * i, *gates = in.gates() + 3 * width * i;
    for (int64_t c = 0; c < width; c += 16) {
      const Lanes from = load(scalars + width * i + c), gate = load(gates + c);
      const Lanes to_product = from * load(gates + width + c);
      Lanes product = fill(0.f), to_gate = fill(0.f);
      for (int d = 0; d < 3; ++d) {
        const float* m = mixed + 3 * width * d + c;
        float* to = to_mixed + 9 * width * i + 3 * width * d + c;
        const Lanes first = load(m), second = load(m + width);
        const Lanes vector = load(vectors + 3 * width * i + width * d + c);
        product += first * second;
        to_gate += vector * load(m + 2 * width);
        store(to, to_product * second);
        store(to + width, to_product * first);
        store(to + 2 * width, vector * gate);
      }
      float* to = to_gates + 3 * width * i + c;
      store(to, to_gate);
      store(to + width, from * product);
      store(to + 2 * width, from);
    }
  }
}
