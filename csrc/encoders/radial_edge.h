// What a pair's distance decides in a network with radial functions: envelope, spline weights, and their derivatives;
// and the activation of one channel.
//
// Envelope: Gasteiger, Gross, Guennemann, ICLR 2020, arXiv 2003.03123, eq. 8, with exponent 6. Splines: de Boor, "A
// practical guide to splines" (1978), chapter X.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/macros.h"

namespace openmm_gnn {

// Cubic B-splines on equally spaced knots, (types, knots, channels).
struct SplineTable {
  const float* values;
  int64_t knots, channels;
  float start, cutoff;
};

struct RadialEdge {
  float u[3];  // unit vector from i to j
  float inverse_distance;
  float envelope, envelope_slope;
  float weight[4], slope[4];
  int64_t row;  // first of the four knots, in floats from the start of the table
};

OPENMM_GNN_HOST_DEVICE RadialEdge radial_edge(const float* vector, float distance, int64_t type,
                                              const SplineTable& table) {
  RadialEdge edge;
  edge.inverse_distance = 1.f / (distance > 1e-6f ? distance : 1e-6f);
  for (int d = 0; d < 3; ++d) edge.u[d] = vector[d] * edge.inverse_distance;
  // 1 - 28 x^6 + 48 x^7 - 21 x^8, graph/cutoff_envelope.py.
  const float x = distance / table.cutoff, x2 = x * x;
  edge.envelope = 1.f - x2 * x2 * x2 * (28.f - x * (48.f - 21.f * x));
  edge.envelope_slope = -168.f * x2 * x2 * x * (1 - x) * (1 - x) / table.cutoff;
  const float spacing = (table.cutoff - table.start) / static_cast<float>(table.knots - 3);
  const float places = (distance - table.start) / spacing;
  const bool inside = places > 0;
  float t = inside ? places : 0;
  int64_t knot = static_cast<int64_t>(t);
  knot = knot < table.knots - 4 ? knot : table.knots - 4;
  t -= static_cast<float>(knot);
  const float t2 = t * t, t3 = t2 * t, s = 1 - t;
  edge.weight[0] = s * s * s * (1 / 6.f);
  edge.weight[1] = (3 * t3 - 6 * t2 + 4) * (1 / 6.f);
  edge.weight[2] = (-3 * t3 + 3 * t2 + 3 * t + 1) * (1 / 6.f);
  edge.weight[3] = t3 * (1 / 6.f);
  edge.row = (type * table.knots + knot) * table.channels;
  const float per_nm = inside ? 1 / spacing : 0.f;
  edge.slope[0] = -0.5f * s * s * per_nm;
  edge.slope[1] = (1.5f * t2 - 2 * t) * per_nm;
  edge.slope[2] = (-1.5f * t2 + t + 0.5f) * per_nm;
  edge.slope[3] = 0.5f * t2 * per_nm;
  return edge;
}

// x * sigmoid(x) and its derivative.
struct ActivatedChannel {
  float value, slope;
};

OPENMM_GNN_HOST_DEVICE ActivatedChannel silu_channel(float x) {
#if defined(__CUDA_ARCH__)
  const float s = 1.f / (1.f + __expf(-x));  // 2 ulp of the exponent's value; beyond |x| = 88 it is 0 or 1
#else
  const float s = 1.f / (1.f + std::exp(-x));
#endif
  return {x * s, s * (1.f + x * (1.f - s))};
}

}  // namespace openmm_gnn
