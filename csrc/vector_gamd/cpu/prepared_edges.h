// The pairs of a network as its loops read them, for operators that run several loops over the same pairs.
#pragma once

#include <cstdint>

#include "encoders/radial_edge.h"

namespace openmm_gnn {

// Pairs within the cutoff, each once. `row` of an edge counts rows of a radial table, whatever channels this has.
struct PreparedEdges {
  int64_t count;
  const int32_t *first, *second;  // atoms
  const RadialEdge* edges;

  int64_t i(int64_t k) const { return first[k]; }
  int64_t j(int64_t k) const { return second[k]; }
};

}  // namespace openmm_gnn
