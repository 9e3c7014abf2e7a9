// What a pair has of its channels in a network with vector features, see openmm_gnn/kernels/vector_network.py. For the CPU,
// compiled once for each instruction set, `Lanes` are 16 channels; on the GPU it is one. The including file has `INLINE`,
// `Lanes` and `load`.

// Values of a radial table, or with the slopes for weights their derivatives by the distance.
INLINE Lanes spline(const SplineTable& table, const RadialEdge& edge, const float (&weight)[4], int64_t channel) {
  const float* row = table.values + edge.row + channel;
  Lanes value = load(row) * weight[0];
  for (int m = 1; m < 4; ++m) value += load(row + m * table.channels) * weight[m];
  return value;
}

// Projections of both probes on the pair: own = p_a . u, other = -p_b . u, mutual = p_a . p_b.
struct PairProjections {
  Lanes of_a[3], of_b[3];
  Lanes own, other, mutual;
};

INLINE PairProjections project_pair(const float* probe, int64_t a, int64_t b, int64_t width, int64_t channel,
                                    const RadialEdge& edge) {
  PairProjections p{};
  for (int d = 0; d < 3; ++d) {
    p.of_a[d] = load(probe + (3 * a + d) * width + channel);
    p.of_b[d] = load(probe + (3 * b + d) * width + channel);
    p.own += p.of_a[d] * edge.u[d];
    p.other -= p.of_b[d] * edge.u[d];
    p.mutual += p.of_a[d] * p.of_b[d];
  }
  return p;
}

// The argument of the decoder's SiLU.
INLINE Lanes strength_input(const RowStrengths& in, const RadialEdge& edge, int64_t a, int64_t b,
                            const PairProjections& p, int64_t f) {
  const int64_t width = in.width;
  return spline(in.table, edge, edge.weight, f) + load(in.total + a * width + f) + load(in.total + b * width + f) +
         load(in.left + a * width + f) * load(in.left + b * width + f) + load(in.mixing + f) * (p.own + p.other) +
         load(in.mixing + width + f) * (p.own * p.other) + load(in.mixing + 2 * width + f) * p.mutual;
}
