// frame_edges: what is asked, the memory that the answer needs, and what frame_edges.cu offers to frame_operators.cpp.
#pragma once

#include "neighbors/cuda/workspace.h"

namespace openmm_gnn::cuda {

// Above this many atoms in one frame the cell list is better: 20 n^2 = 1.3e9 instructions are 50 microseconds on a GPU
// of 3e13 instructions per second, as much as the launches and waits of its own search and the two sorts take, and
// four times that for a frame twice as large.
constexpr int64_t kMostFrameAtoms = 8192;

// First atom of a frame, and the one after its last.
struct FrameSpan {
  int32_t first, last;
};

// What the host reads, and the plan of the scans. All zero at first.
struct EdgeReport {
  int64_t found;       // edges to write: all within the cutoff, or by index those that are kept
  int64_t kept;        // the nearest
  int64_t bad_atom;    // less the number of atoms: the lowest whose position is not finite; 0 if there is none
  int32_t bad_frames;  // 1: the frames' numbers fall or are negative
  int32_t too_large;   // 1: some frame has more than kMostFrameAtoms

  OPENMM_GNN_HOST_DEVICE bool active() const { return bad_atom == 0 && bad_frames == 0 && too_large == 0; }
};

// The question, and the scratch memory that its answer needs.
template <typename T>
struct FrameSearch {
  const T* positions;
  int64_t row_stride, column_stride;
  const int64_t* frames;  // (N,) the frame of each atom; nullptr: all are one
  int64_t num_atoms;
  T cutoff;
  int64_t most;  // edges of a target; 0: all
  bool nearest;  // the nearest `most`; otherwise the first by index
  int strands;   // threads that share a row
  EdgeReport* report;
  SearchAtom<T>* atoms;   // (N,)
  FrameSpan* spans;       // (N,)
  int32_t* strand_count;  // (N * strands,)
  ScanMemory strand_scan;
  int32_t* row_count;  // (N,) of the nearest
  ScanMemory row_scan;

  // Where the entries of a row begin among all of `count`.
  OPENMM_GNN_HOST_DEVICE int64_t row_start(int64_t atom, int64_t count) const {
    return atom < num_atoms ? strand_scan.start(atom * strands) : count;
  }
};

template <typename T, class Source>
void lay_out_frames(Source& source, FrameSearch<T>& search) {
  const int64_t atoms = search.num_atoms, rows = search.nearest ? atoms : 0;
  search.report = source.template take<EdgeReport>(1);
  search.atoms = source.template take<SearchAtom<T>>(atoms);
  search.spans = source.template take<FrameSpan>(atoms);
  search.strand_count = source.template take<int32_t>(atoms * search.strands);
  search.strand_scan = take_scan(source, atoms * search.strands);
  search.row_count = source.template take<int32_t>(rows);
  search.row_scan = take_scan(source, rows);
}

// What the operator returns, (2, capacity).
template <typename T>
struct EdgeIndex {
  int64_t* index;
  int64_t capacity;

  OPENMM_GNN_HOST_DEVICE void write(int64_t place, int64_t source, int64_t target, T) const {
    index[place] = source;
    index[capacity + place] = target;
  }
};

// All edges within the cutoff, of which the nearest are wanted.
template <typename T>
struct NearEdges {
  int32_t *sources, *targets;
  T* distances;  // -1 on an atom's own edge, which goes before coincident atoms
  int64_t count;

  // Compared are distances, as everywhere else, for which some different squares are equal.
  OPENMM_GNN_HOST_DEVICE void write(int64_t place, int64_t source, int64_t target, T squared) const {
    sources[place] = static_cast<int32_t>(source);
    targets[place] = static_cast<int32_t>(target);
    distances[place] = source == target ? T(-1) : static_cast<T>(sqrt(squared));
  }
};

template <typename T, class Source>
void lay_out_near(Source& source, int64_t count, NearEdges<T>& near) {
  near.sources = source.template take<int32_t>(count);
  near.targets = source.template take<int32_t>(count);
  near.distances = source.template take<T>(count);
  near.count = count;
}

// A cudaStream_t without the CUDA headers, as in neighbor_lists.h.
using StreamHandle = void*;

// Starts the search, waits for it, and returns what it has found: the one wait of this operator.
template <typename T>
EdgeReport count_frame_edges(StreamHandle stream, const FrameSearch<T>& search);

// Writes the edges that were counted. `near` is for the nearest alone. Does not wait.
template <typename T>
void write_frame_edges(StreamHandle stream, const FrameSearch<T>& search, const NearEdges<T>& near,
                       const EdgeIndex<T>& output);

}  // namespace openmm_gnn::cuda
