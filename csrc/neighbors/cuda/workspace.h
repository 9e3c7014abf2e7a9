// What the kernels of one search share: the input, the plan that the first kernel writes, and the scratch memory.
//
// All scratch lies in one allocation whose size depends on the number of atoms alone, so it can be part of a CUDA
// graph. Per atom at float32 and above 131,072 atoms: 130 bytes (two copies of the position, wrap, cell and its scan,
// strand, its scan and its words of hits), and 24 more in update_neighbor_list; where 32 threads share a row, 2000.
#pragma once

#include <cstddef>
#include <cstdint>

#include "neighbors/cell_grid.h"
#include "neighbors/lattice.h"
#include "neighbors/neighbor_pairs.h"
#include "base/cuda/block.h"
#include "base/cuda/prefix_sum.h"

namespace openmm_gnn::cuda {

// Up to this many atoms every pair is tested; above, the cell list saves more than its extra kernels cost. The environment
// variable OPENMM_GNN_BRUTE_FORCE_ATOMS sets another number; `make bench-gpu` measures where the two cross.
constexpr int64_t kBruteForceAtoms = 2048;

// One row (atom) is split among this many threads at most, and into fewer as soon as rows alone fill a large GPU.
constexpr int kMaxStrands = 32;
constexpr int64_t kEnoughThreads = 131072;

// Words of 32 candidates each that the first pass of the cell list keeps for the second, of each strand. Twelve cover the
// nine runs of a row and the three more that a face of the box makes of them.
constexpr int kHitWords = 12;

// A ring of fewer cells would meet itself (search_cells.h).
constexpr int64_t kMinCells = 64;

// Fractions of type T differ from the exact ones by less than this many times the rounding of T.
constexpr double kFractionRounding = 16;

// The system as the caller gave it. box == nullptr: open boundary.
template <typename T>
struct System {
  const T* positions;
  int64_t row_stride, column_stride;
  int64_t num_atoms;
  const T* box;
  int64_t box_row_stride, box_column_stride;
  double cutoff;  // of the search: cutoff + skin in update_neighbor_list
  bool full;
  bool brute_force;
};

// Written by the first kernel, read by all others.
template <typename T>
struct Plan {
  Lattice lattice;
  CellGrid grid;
  int64_t ring_stride;   // open boundary: cells of neighbouring y are this far apart on the ring, z its square
  T reach[3];            // the cutoff as a fraction of each height, with a margin for rounding
  int32_t rebuild;       // 1: the list has to be found anew
  int32_t searchable;    // 0: the box is no box, nothing to search
  int32_t bad_positions; // 1: some atom is NaN, infinite or too far away
  int64_t errors;        // ErrorBit of the box
  int64_t bad_atom;      // lowest such atom, or INT64_MAX
  int64_t found;         // pairs of the search

  OPENMM_GNN_HOST_DEVICE bool active() const { return rebuild != 0 && searchable != 0; }
};

// An atom as the search reads it, in one or two 16-byte loads. A bad atom has NaN for a position: it is near nothing.
template <typename T>
struct AtomIndex {
  using Type = int32_t;
};
template <>
struct AtomIndex<double> {
  using Type = int64_t;
};
template <typename T>
struct alignas(16) SearchAtom {
  T x, y, z;
  typename AtomIndex<T>::Type index;
};
static_assert(sizeof(SearchAtom<float>) == 16 && sizeof(SearchAtom<double>) == 32, "loads must stay whole");

// What neighbor_pairs reads back, in one copy.
struct Report {
  int64_t found, errors, bad_atom;
};

template <typename T>
struct Workspace {
  Plan<T>* plan;
  Report* report;
  SearchAtom<T>* wrapped;  // (N,) in the order of the atoms
  SearchAtom<T>* sorted;   // (N,) by cell, then by atom
  T* fractional;           // (N, 3)
  int32_t* wraps;          // (N, 3)
  int32_t* cell;           // (N,)
  int32_t* slot;           // (N,) order of arrival in the cell
  int32_t* members;        // (N,) atoms by cell, in order of arrival
  int32_t* cell_count;     // (max_cells + 1,)
  ScanMemory cell_scan;
  uint32_t* hits;          // (kHitWords, N * strands), by cell list alone
  int32_t* strand_count;   // (N * strands,)
  ScanMemory strand_scan;
  T* unwrapped;            // (N, 3) raw positions less their jumps since the reference
  int32_t* jumps;          // (N, 3)
  int64_t max_cells;
  int64_t num_strands;     // N * strands
  int strands;             // threads that share a row, a power of two
  int strand_bits;         // its logarithm
};

inline int strands_per_row(int64_t num_atoms) {
  int strands = 1;
  while (strands < kMaxStrands && num_atoms * strands < kEnoughThreads) strands *= 2;
  return strands;
}

// Deals out one piece of memory; with a null base it only counts bytes.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<char*>(base)) {}
  template <typename Value>
  Value* take(int64_t count) {
    constexpr int64_t kAlignment = 256;  // keeps every array on its own cache lines
    Value* piece = base_ == nullptr ? nullptr : reinterpret_cast<Value*>(base_ + used_);
    const int64_t bytes = count * static_cast<int64_t>(sizeof(Value));
    used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

template <class Source>
ScanMemory take_scan(Source& source, int64_t count) {
  const int64_t blocks = blocks_for(count, kScanItems);
  return {source.template take<int64_t>(count), source.template take<int64_t>(blocks + 1), count, blocks};
}

// What the sizes of the scratch arrays depend on.
struct WorkShape {
  int64_t num_atoms;
  bool brute_force;
  bool with_state;  // for update_neighbor_list
  int strands;
};

// Lays out the scratch. `Source` is the Carver above or, in the tests, one that gives each array fences of its own.
template <typename T, class Source>
void lay_out(Source& source, const WorkShape& shape, Workspace<T>& work) {
  const int64_t atoms = shape.num_atoms;
  const int64_t cell_atoms = shape.brute_force ? 0 : atoms;
  const int64_t tile_atoms = shape.brute_force ? atoms : 0;
  const int64_t tracked_atoms = shape.with_state ? atoms : 0;
  work.strands = shape.strands;
  work.strand_bits = 0;
  while ((1 << work.strand_bits) < shape.strands) ++work.strand_bits;
  work.num_strands = atoms * shape.strands;
  work.max_cells = atoms > kMinCells ? atoms : kMinCells;
  const int64_t cells = shape.brute_force ? 0 : work.max_cells + 1;
  work.plan = source.template take<Plan<T>>(1);
  work.report = source.template take<Report>(1);
  work.wrapped = source.template take<SearchAtom<T>>(atoms);
  work.wraps = source.template take<int32_t>(atoms * 3);
  work.fractional = source.template take<T>(tile_atoms * 3);
  work.sorted = source.template take<SearchAtom<T>>(cell_atoms);
  work.cell = source.template take<int32_t>(cell_atoms);
  work.slot = source.template take<int32_t>(cell_atoms);
  work.members = source.template take<int32_t>(cell_atoms);
  work.cell_count = source.template take<int32_t>(cells);
  work.cell_scan = take_scan(source, cells);
  work.hits = source.template take<uint32_t>(shape.brute_force ? 0 : kHitWords * work.num_strands);
  work.strand_count = source.template take<int32_t>(work.num_strands);
  work.strand_scan = take_scan(source, work.num_strands);
  work.unwrapped = source.template take<T>(tracked_atoms * 3);
  work.jumps = source.template take<int32_t>(tracked_atoms * 3);
}

// (S @ box)[axis]. Odd in S to the last bit, so that the pairs (i, j, S) and (j, i, -S) are judged alike and the half
// list is exactly half of the full one. Most pairs need no lattice vector and are spared the double precision.
template <typename T>
OPENMM_GNN_HOST_DEVICE T lattice_offset(const Lattice& lattice, const int32_t (&shift)[3], int axis) {
  if (shift[0] == 0 && shift[1] == 0 && shift[2] == 0) return T(0);
  return static_cast<T>(shift[0] * lattice.rows[0][axis] + shift[1] * lattice.rows[1][axis] +
                        shift[2] * lattice.rows[2][axis]);
}

}  // namespace openmm_gnn::cuda
