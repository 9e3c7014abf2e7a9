// The loops over pairs of a network with vector features; included once for each instruction set, inside a namespace of its
// own. `Edges` are PairEnds, or PreparedEdges, of which nothing is computed again in each loop.

#include "vector_gamd/pair_formulas.inl"

// False for padding and beyond the cutoff.
INLINE bool read_edge(const PairEnds& pairs, int64_t k, const SplineTable& table, RadialEdge& edge) {
  if (pairs.i(k) < 0 || !(pairs.distances[k] < table.cutoff)) return false;
  edge = radial_edge(pairs.vectors + 3 * k, pairs.distances[k], pairs.types[k], table);
  return true;
}

INLINE bool read_edge(const PreparedEdges& edges, int64_t k, const SplineTable& table, RadialEdge& edge) {
  edge = edges.edges[k];
  edge.row *= table.channels;
  return true;
}

INLINE void add_radial(float* table, int64_t channels, const RadialEdge& edge, int64_t channel, Lanes gradient) {
  float* row = table + edge.row + channel;
  for (int m = 0; m < 4; ++m) add_to(row + m * channels, gradient * edge.weight[m]);
}

// Gradients of projections to the probes, and what they add to the gradient of the unit vector.
template <bool kGeometry>
INLINE void add_projections(float* probe, int64_t i, int64_t j, int64_t width, int64_t f, const RadialEdge& edge,
                            const PairProjections& p, Lanes da, Lanes db, Lanes dq, Lanes (&du)[3]) {
  for (int d = 0; d < 3; ++d) {
    add_to(probe + (3 * i + d) * width + f, da * edge.u[d] + dq * p.of_b[d]);
    add_to(probe + (3 * j + d) * width + f, dq * p.of_a[d] - db * edge.u[d]);
    if (kGeometry) du[d] += da * p.of_a[d] - db * p.of_b[d];
  }
}

using Quad = float __attribute__((vector_size(16)));
using QuadIndex = int32_t __attribute__((vector_size(16)));

INLINE Quad quad_sum(const Register& v) {
  Quad parts[kRegisterLanes / 4], total{};
  __builtin_memcpy(parts, &v, sizeof(v));
  for (const Quad& part : parts) total += part;
  return total;
}

template <class Half>
INLINE Quad quad_sum(const Pair<Half>& v) {
  return quad_sum(v.low + v.high);
}

// The sums of four at once: each alone would wait for its own additions.
INLINE Quad four_sums(const Lanes& a, const Lanes& b, const Lanes& c, const Lanes& d) {
  const QuadIndex low{0, 4, 1, 5}, high{2, 6, 3, 7}, first{0, 1, 4, 5}, second{2, 3, 6, 7};
  const Quad qa = quad_sum(a), qb = quad_sum(b), qc = quad_sum(c), qd = quad_sum(d);
  const Quad ab = __builtin_shuffle(qa, qb, low) + __builtin_shuffle(qa, qb, high);
  const Quad cd = __builtin_shuffle(qc, qd, low) + __builtin_shuffle(qc, qd, high);
  return __builtin_shuffle(ab, cd, first) + __builtin_shuffle(ab, cd, second);
}

// From the gradients of unit vector and distance to that of the vector.
INLINE void add_vector_gradient(float* gradient, const RadialEdge& edge, const Lanes (&du)[3], const Lanes& dr) {
  const Quad g = four_sums(du[0], du[1], du[2], dr);
  const float along = g[0] * edge.u[0] + g[1] * edge.u[1] + g[2] * edge.u[2];
  for (int d = 0; d < 3; ++d) gradient[d] += (g[d] - along * edge.u[d]) * edge.inverse_distance + g[3] * edge.u[d];
}

template <bool kVectors, class Edges>
static void messages_loop(const Edges& pairs, int64_t begin, int64_t end, const RowMessages& in, float* scalars,
                          float* vectors) {
  const int64_t width = in.width, wide = 3 * width;
  constexpr int kGroups = kVectors ? 3 : 2;
  for (int64_t k = begin; k < end; ++k) {
    RadialEdge edge;
    if (!read_edge(pairs, k, in.table, edge)) continue;
    const int64_t atom[2] = {pairs.i(k), pairs.j(k)};
    for (int64_t f = 0; f < width; f += 16) {
      PairProjections p;
      if (kVectors) p = project_pair(in.probe, atom[0], atom[1], width, f, edge);
      Lanes message[2][3];
#pragma GCC unroll 3
      for (int g = 0; g < kGroups; ++g) {
        const int64_t c = g * width + f;
        Lanes z = spline(in.table, edge, edge.weight, c);
        if (kVectors) z += load(in.mixing + 2 * wide + c) * p.mutual;
#pragma GCC unroll 3
        for (int to = 0; to < 2; ++to) {
          Lanes here = z + load(in.source + atom[1 - to] * wide + c) + load(in.target + atom[to] * wide + c);
          if (kVectors) {
            here += load(in.mixing + c) * (to ? p.other : p.own) + load(in.mixing + wide + c) * (to ? p.own : p.other);
          }
          message[to][g] = here * sigmoid(here) * edge.envelope;
        }
      }
#pragma GCC unroll 3
      for (int to = 0; to < 2; ++to) {
        const int64_t receiver = atom[to], sender = atom[1 - to];
        add_to(scalars + receiver * width + f, message[to][0] * load(in.value + sender * width + f));
#pragma GCC unroll 3
        for (int d = 0; d < 3; ++d) {
          Lanes v = message[to][1] * (to ? -edge.u[d] : edge.u[d]);
          if (kVectors) v += message[to][2] * load(in.carried + (3 * sender + d) * width + f);
          add_to(vectors + (3 * receiver + d) * width + f, v);
        }
      }
    }
  }
}

template <bool kVectors, bool kGeometry, bool kWeights, class Edges>
static void message_gradients_loop(const Edges& pairs, int64_t begin, int64_t end, const RowMessages& in,
                                   const RowMessageGradients& out) {
  const int64_t width = in.width, wide = 3 * width;
  constexpr int kGroups = kVectors ? 3 : 2;
  for (int64_t k = begin; k < end; ++k) {
    RadialEdge edge;
    if (!read_edge(pairs, k, in.table, edge)) continue;
    const int64_t atom[2] = {pairs.i(k), pairs.j(k)};
    Lanes du[3] = {Lanes{}, Lanes{}, Lanes{}}, dr = Lanes{};
    for (int64_t f = 0; f < width; f += 16) {
      PairProjections p;
      Lanes da = Lanes{}, db = Lanes{}, dq = Lanes{};
      if (kVectors) p = project_pair(in.probe, atom[0], atom[1], width, f, edge);
      // Gradients of the three messages of each direction, from what they were multiplied with.
      Lanes incoming[2][3], vector_gradient[2][3];
#pragma GCC unroll 3
      for (int to = 0; to < 2; ++to) {
        const int64_t receiver = atom[to], sender = atom[1 - to];
        const Lanes scalar_gradient = load(out.scalars + receiver * width + f);
        incoming[to][0] = scalar_gradient * load(in.value + sender * width + f);
        incoming[to][1] = incoming[to][2] = Lanes{};
#pragma GCC unroll 3
        for (int d = 0; d < 3; ++d) {
          vector_gradient[to][d] = load(out.vectors + (3 * receiver + d) * width + f);
          incoming[to][1] += vector_gradient[to][d] * (to ? -edge.u[d] : edge.u[d]);
          if (kVectors) incoming[to][2] += vector_gradient[to][d] * load(in.carried + (3 * sender + d) * width + f);
        }
      }
#pragma GCC unroll 3
      for (int g = 0; g < kGroups; ++g) {
        const int64_t c = g * width + f;
        Lanes z = spline(in.table, edge, edge.weight, c);
        Lanes receiver_mixing, sender_mixing, mutual_mixing;
        if (kVectors) {
          receiver_mixing = load(in.mixing + c);
          sender_mixing = load(in.mixing + wide + c);
          mutual_mixing = load(in.mixing + 2 * wide + c);
          z += mutual_mixing * p.mutual;
        }
        Lanes table_gradient = Lanes{};
#pragma GCC unroll 3
        for (int to = 0; to < 2; ++to) {
          const int64_t receiver = atom[to], sender = atom[1 - to];
          Lanes here = z + load(in.source + sender * wide + c) + load(in.target + receiver * wide + c);
          const Lanes own = to ? p.other : p.own, other = to ? p.own : p.other;
          if (kVectors) here += receiver_mixing * own + sender_mixing * other;
          const Activated activated = silu(here);
          const Lanes message = activated.value * edge.envelope;
          if (g == 0) add_to(out.value + sender * width + f, message * load(out.scalars + receiver * width + f));
          if (g == 1 && kGeometry) {
#pragma GCC unroll 3
            for (int d = 0; d < 3; ++d) du[d] += message * (to ? -vector_gradient[to][d] : vector_gradient[to][d]);
          }
          if (g == 2) {
#pragma GCC unroll 3
            for (int d = 0; d < 3; ++d) {
              add_to(out.carried + (3 * sender + d) * width + f, message * vector_gradient[to][d]);
            }
          }
          if (kGeometry) dr += incoming[to][g] * activated.value * edge.envelope_slope;
          const Lanes dz = incoming[to][g] * activated.slope * edge.envelope;
          add_to(out.source + sender * wide + c, dz);
          add_to(out.target + receiver * wide + c, dz);
          table_gradient += dz;
          if (kVectors) {
            (to ? db : da) += receiver_mixing * dz;
            (to ? da : db) += sender_mixing * dz;
            if (kWeights) {
              add_to(out.mixing + c, dz * own);
              add_to(out.mixing + wide + c, dz * other);
            }
          }
        }
        if (kWeights) add_radial(out.table, wide, edge, c, table_gradient);
        if (kGeometry) dr += table_gradient * spline(in.table, edge, edge.slope, c);
        if (kVectors) {
          dq += mutual_mixing * table_gradient;
          if (kWeights) add_to(out.mixing + 2 * wide + c, table_gradient * p.mutual);
        }
      }
      if (kVectors) add_projections<kGeometry>(out.probe, atom[0], atom[1], width, f, edge, p, da, db, dq, du);
    }
    if (kGeometry) add_vector_gradient(out.pair_vectors + 3 * k, edge, du, dr);
  }
}

template <class Edges>
static void strengths_loop(const Edges& pairs, int64_t begin, int64_t end, const RowStrengths& in,
                           float* strengths) {
  const int64_t width = in.width;
  for (int64_t k = begin; k < end; ++k) {
    RadialEdge edge;
    if (!read_edge(pairs, k, in.table, edge)) continue;
    const int64_t i = pairs.i(k), j = pairs.j(k);
    Lanes strength = Lanes{};
    for (int64_t f = 0; f < width; f += 16) {
      const PairProjections p = project_pair(in.probe, i, j, width, f, edge);
      const Lanes z = strength_input(in, edge, i, j, p, f);
      strength += load(in.readout + f) * z * sigmoid(z);
    }
    strengths[k] += sum(strength) * edge.envelope;
  }
}

// Returns the sum of the strengths, each times its gradient, where `kSums`.
template <bool kGeometry, bool kWeights, bool kSums, class Edges>
static double strength_gradients_loop(const Edges& pairs, int64_t begin, int64_t end, const RowStrengths& in,
                                      const RowStrengthGradients& out) {
  const int64_t width = in.width;
  double total = 0;
  for (int64_t k = begin; k < end; ++k) {
    RadialEdge edge;
    if (!read_edge(pairs, k, in.table, edge)) continue;
    const int64_t i = pairs.i(k), j = pairs.j(k);
    const float incoming = out.strengths[k] * edge.envelope;
    Lanes du[3] = {Lanes{}, Lanes{}, Lanes{}}, dr = Lanes{}, strength = Lanes{};
    for (int64_t f = 0; f < width; f += 16) {
      const PairProjections p = project_pair(in.probe, i, j, width, f, edge);
      const Lanes left_i = load(in.left + i * width + f), left_j = load(in.left + j * width + f);
      const Lanes sum_mixing = load(in.mixing + f), product_mixing = load(in.mixing + width + f),
                  mutual_mixing = load(in.mixing + 2 * width + f), readout = load(in.readout + f);
      const Activated activated = silu(strength_input(in, edge, i, j, p, f));
      const Lanes dz = readout * activated.slope * incoming;
      if (kSums) strength += readout * activated.value;
      if (kWeights) {
        add_to(out.readout + f, activated.value * incoming);
        add_radial(out.table, width, edge, f, dz);
        add_to(out.mixing + f, dz * (p.own + p.other));
        add_to(out.mixing + width + f, dz * (p.own * p.other));
        add_to(out.mixing + 2 * width + f, dz * p.mutual);
      }
      add_to(out.total + i * width + f, dz);
      add_to(out.total + j * width + f, dz);
      add_to(out.left + i * width + f, dz * left_j);
      add_to(out.left + j * width + f, dz * left_i);
      if (kGeometry) {
        dr += dz * spline(in.table, edge, edge.slope, f) +
              readout * activated.value * (out.strengths[k] * edge.envelope_slope);
      }
      add_projections<kGeometry>(out.probe, i, j, width, f, edge, p, dz * (sum_mixing + product_mixing * p.other),
                                 dz * (sum_mixing + product_mixing * p.own), dz * mutual_mixing, du);
    }
    if (kGeometry) add_vector_gradient(out.pair_vectors + 3 * k, edge, du, dr);
    if (kSums) total += sum(strength) * incoming;
  }
  return total;
}
