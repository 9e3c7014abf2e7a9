// The operators of encoders on the GPU, as sums over rows of edges; formulas are in models/{torchmd_et,visnet,tensornet}.py.
//
//   edge_rows(receivers (E,) int64, num_atoms) -> starts (N + 1,) int32, order (E,) int32
//
// order[starts[a]] .. order[starts[a + 1] - 1] are the edges that atom a receives, ascending; a negative receiver is no
// edge, and what follows starts[N] is undefined. So a sum over the messages to an atom is the work of one block: no atomic
// additions, the same bits at every call. Nothing waits for the device and no shape depends on the data.
#pragma once

#include <cstdint>

namespace openmm_gnn {

struct EdgeRows {
  const int32_t *starts, *order;  // (N + 1,), (E,)
  int64_t num_atoms;
  const int64_t* senders;  // (E,)
};

// Values, and slopes per knot, (knots, 2, channels), of graph/filter_table.py.
struct HermiteTable {
  const float* values;
  int64_t knots, channels;
};

// Of an edge (E, 3), (E,), (E,); what an operator does not need is null.
struct EdgeGeometry {
  const float *directions, *envelope;
  const double* places;  // in a table, in knots
};

struct AttentionRows {
  int64_t width, head_width;
  const float* node;     // (N, 5 width): query, key, three values
  const float* vectors;  // (N, 3, width)
  HermiteTable filters;  // 4 width channels: of the key and the values
};

struct AttentionGradients {
  const float *from_scalars, *from_vectors;  // come in: (N, width), (N, 3, width)
  float *node, *carried;                     // (N, 5 width), (N, 3, width)
  float *directions, *envelope, *places;     // of each edge (E, 3), (E,), (E,) per knot; or null, all three
};

struct TensorRows {
  int64_t width;
  const float* parts;              // (N, 9, width)
  const float *receiver, *sender;  // (N, width), instead of parts: the first tensors are made of directions
  HermiteTable filters;            // 3 width channels: of the parts
};

struct EdgeAttentionRows {
  int64_t width, head_width, filter_width;  // 3 width with the gates of the edges' change, or 2 width
  const float* node;                        // (N, 3 width): query, key, value
  const float* filters;                     // (E, filter_width), before their activation: of key, value, gates
};

struct EdgeVectorRows {
  int64_t width, filter_width;
  const float* vectors;  // (N, 3, width)
  const float* scales;   // (E, 2 width), before their activation: of the sender's vectors and of the direction
  // Where edges change, else null: (N, 3, 5 width), the target's and the source's parts last; as above; (E, width).
  const float *mixed, *filters, *edges;
};

}  // namespace openmm_gnn
