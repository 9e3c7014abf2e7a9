// The inner loops: one atom against its cell's candidates. One implementation per instruction set, chosen at run time;
// all give the same bits.
#pragma once

#include "neighbors/cpu/candidates.h"
#include "base/cpu/instruction_set.h"

namespace openmm_gnn {

// The accepted candidates of one atom.
template <typename T>
struct Hits {
  Buffer<T> x, y, z;      // r_ij
  Buffer<int32_t> j;
  Buffer<int32_t> place;  // in the candidates

  void reserve(int64_t count) {
    x.reserve(count);
    y.reserve(count);
    z.reserve(count);
    j.reserve(count);
    place.reserve(count);
  }
};

// One atom, its own candidate already made unreachable.
template <typename T>
struct Row {
  const Candidates<T>* candidates;
  T x, y, z;
  T cutoff_squared;
  int32_t atom;
  bool half;
};

// Where the pairs of one atom go.
template <typename T>
struct GeometryRow {
  int64_t* i;
  int64_t* j;
  T* vectors;
  T* distances;
};

template <typename T>
struct RowKernels {
  // The candidates of a cell; with `runs` also which image each is in.
  void (*gather)(Candidates<T>&, const CellList<T>&, int32_t cx, int32_t cy, int32_t cz, bool runs);
  // Number of accepted candidates.
  int64_t (*count)(const Row<T>&);
  // Their vectors and atoms.
  int64_t (*collect)(const Row<T>&, Hits<T>&);
  // Their places.
  int64_t (*locate)(const Row<T>&, Hits<T>&);
  // Writes `count` hits of atom i as pairs, vectors and distances; touches nothing past them.
  void (*write)(const Hits<T>&, int64_t count, int64_t i, const GeometryRow<T>&);
};

template <typename T>
const RowKernels<T>& row_kernels();

}  // namespace openmm_gnn
