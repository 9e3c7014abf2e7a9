// frame_edges: the edges of all frames of a batch by one search, as graph/edges.py orders them (../neighbor_pairs.h).
//
// An atom is tested against every atom of its frame, twice: counted, and, once the sums of the counts are known,
// written. As in search_tiles.h rows are split into strands, here of neighbouring candidates, so that the scan over
// (row, strand) gives each row in the order of its sources. Neighbouring threads are neighbouring atoms with the same
// strand: a warp of one frame reads one candidate together, 16 bytes (32 in double precision) for all its threads.
// The nearest of a row are written with their distances first, and each then counts the nearer ones of its row, which
// is its place. No atomics but for the errors; the same bits at every call.
//
// Cost: per pass and candidate some 10 instructions, for a frame of n atoms 20 n^2 in all. 64 frames of 291 atoms:
// 1.1e8, microseconds on any GPU, in 150,000 threads; one such frame: 9,000 threads of 10 candidates each. Ranks: 4
// bytes (or 8) from the cache for every pair of entries of a row. Scratch: per atom 24 bytes and 12 per strand, and for
// the nearest 12 (16) per atom within the cutoff.
#pragma once

#include <type_traits>

#include "neighbors/pair_rules.h"
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

// The lowest place in [low, high) from which on frames reach `frame`, or `high`.
OPENMM_GNN_HOST_DEVICE int64_t first_reaching(const int64_t* frames, int64_t frame, int64_t low, int64_t high) {
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (frames[middle] >= frame) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// The bounds of an atom's frame, within the batch and around the atom even where the frames' numbers fall.
OPENMM_GNN_HOST_DEVICE FrameSpan span_of(const int64_t* frames, int64_t atom, int64_t num_atoms) {
  if (frames == nullptr) return {0, static_cast<int32_t>(num_atoms)};
  const int64_t frame = frames[atom];
  const int64_t last = frame < INT64_MAX ? first_reaching(frames, frame + 1, atom + 1, num_atoms) : num_atoms;
  return {static_cast<int32_t>(first_reaching(frames, frame, 0, atom)), static_cast<int32_t>(last)};
}

// One thread = one atom: packs its position, finds its frame, and looks at both.
template <typename T>
struct PrepareFrames {
  FrameSearch<T> search;

  OPENMM_GNN_HOST_DEVICE void at(int64_t atom) const {
    const T* raw = search.positions + atom * search.row_stride;
    T place[3];
    bool finite = true;
    for (int d = 0; d < 3; ++d) {
      place[d] = raw[d * search.column_stride];
      finite = finite && place[d] - place[d] == 0;  // NaN for infinity and NaN
    }
    search.atoms[atom] = {place[0], place[1], place[2], static_cast<typename AtomIndex<T>::Type>(atom)};
    if (!finite) atomic_min(&search.report->bad_atom, atom - search.num_atoms);
    const FrameSpan span = span_of(search.frames, atom, search.num_atoms);
    search.spans[atom] = span;
    if (span.last - span.first > kMostFrameAtoms) raise_flag(&search.report->too_large);
    if (search.frames == nullptr) return;
    const int64_t frame = search.frames[atom];
    if (frame < 0 || (atom > 0 && search.frames[atom - 1] > frame)) raise_flag(&search.report->bad_frames);
  }
};

// First pass.
template <typename T>
struct CountEdges {
  struct Thread {
    int32_t edges;
  };
  int32_t* strand_count;

  OPENMM_GNN_HOST_DEVICE void begin(Thread& thread, int64_t) const { thread.edges = 0; }
  OPENMM_GNN_HOST_DEVICE bool edge(Thread& thread, int64_t, int64_t, T) const {
    ++thread.edges;
    return true;
  }
  OPENMM_GNN_HOST_DEVICE void end(Thread& thread, int64_t strand) const { strand_count[strand] = thread.edges; }
};

// Second pass: a strand writes as many as it has counted, or was left by LimitRows.
template <typename T, class Output>
struct WriteEdges {
  struct Thread {
    int64_t next, stop;
  };
  ScanMemory scan;
  const int32_t* strand_count;
  Output output;

  OPENMM_GNN_HOST_DEVICE void begin(Thread& thread, int64_t strand) const {
    thread.next = scan.start(strand);
    thread.stop = thread.next + strand_count[strand];
  }
  OPENMM_GNN_HOST_DEVICE bool edge(Thread& thread, int64_t source, int64_t target, T squared) const {
    if (thread.next == thread.stop) return false;
    output.write(thread.next++, source, target, squared);
    return true;
  }
  OPENMM_GNN_HOST_DEVICE void end(Thread&, int64_t) const {}
};

// One thread = one strand: an atom against a part of its frame, in order.
template <typename T, class Action>
struct SearchFrames {
  FrameSearch<T> search;
  Action action;

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    if (!search.report->active()) return;
    const int64_t part = item / search.num_atoms, target = item - part * search.num_atoms;
    const FrameSpan span = search.spans[target];
    const int64_t length = (span.last - span.first + search.strands - 1) / search.strands;
    const int64_t begin = span.first + part * length, stop = begin + length < span.last ? begin + length : span.last;
    const SearchAtom<T> own = search.atoms[target];
    const int64_t strand = target * search.strands + part;
    typename Action::Thread state;
    action.begin(state, strand);
    for (int64_t source = begin; source < stop; ++source) {
      const SearchAtom<T> other = search.atoms[source];
      const T squared = squared_length(other.x - own.x, other.y - own.y, other.z - own.z);
      // An atom is its own source whatever the cutoff, even one whose square is too small to be told from zero.
      if (!within(squared, search.cutoff) && source != target) continue;
      if (!action.edge(state, source, target, squared)) break;
    }
    action.end(state, strand);
  }
};

// One thread = one row: how many of its edges are kept. By index the first of them are: later strands may write less.
template <typename T>
struct LimitRows {
  FrameSearch<T> search;

  OPENMM_GNN_HOST_DEVICE void at(int64_t atom) const {
    if (!search.report->active()) return;
    int64_t left = search.most;
    for (int64_t strand = atom * search.strands; strand < (atom + 1) * search.strands; ++strand) {
      const int64_t count = search.strand_count[strand], taken = count < left ? count : left;
      left -= taken;
      if (!search.nearest) search.strand_count[strand] = static_cast<int32_t>(taken);
    }
    if (search.nearest) search.row_count[atom] = static_cast<int32_t>(search.most - left);
  }
};

// One thread = one of them: those of its row that are nearer, or as near and earlier, go before it.
template <typename T>
struct RankNearest {
  FrameSearch<T> search;
  NearEdges<T> near;
  EdgeIndex<T> output;

  OPENMM_GNN_HOST_DEVICE void at(int64_t place) const {
    const int64_t target = near.targets[place];
    const int64_t stop = search.row_start(target + 1, near.count);
    const T mine = near.distances[place];
    int64_t rank = 0;
    for (int64_t other = search.row_start(target, near.count); other < stop; ++other) {
      const T distance = near.distances[other];
      rank += distance < mine || (distance == mine && other < place) ? 1 : 0;
    }
    if (rank < search.most) output.write(search.row_scan.start(target) + rank, near.sources[place], target, mine);
  }
};

struct StoreSum {
  int64_t* place;
  OPENMM_GNN_HOST_DEVICE void operator()(int64_t sum) const { *place = sum; }
};

// ---- the launches; `Launcher` is a CUDA stream (launch.h) or the grid emulator --------------------------------------

// Afterwards search.report holds the numbers of edges and the errors.
template <typename T, class Launcher>
void count_frame_edges(Launcher& launcher, const FrameSearch<T>& search) {
  const int64_t atoms = search.num_atoms;
  launcher.clear(search.report, sizeof(EdgeReport));
  launch_items(launcher, atoms, PrepareFrames<T>{search});
  launch_items(launcher, atoms * search.strands, SearchFrames<T, CountEdges<T>>{search, {search.strand_count}});
  if (search.most > 0) launch_items(launcher, atoms, LimitRows<T>{search});
  prefix_sum(launcher, search.report, search.strand_count, search.strand_scan, StoreSum{&search.report->found});
  if (!search.nearest) return;
  prefix_sum(launcher, search.report, search.row_count, search.row_scan, StoreSum{&search.report->kept});
}

// `near` is for the nearest alone.
template <typename T, class Launcher>
void write_frame_edges(Launcher& launcher, const FrameSearch<T>& search, const NearEdges<T>& near,
                       const EdgeIndex<T>& output) {
  const auto write_all = [&](const auto& to) {
    using Write = WriteEdges<T, std::decay_t<decltype(to)>>;
    launch_items(launcher, search.num_atoms * search.strands,
                 SearchFrames<T, Write>{search, {search.strand_scan, search.strand_count, to}});
  };
  if (!search.nearest) return write_all(output);
  write_all(near);
  launch_items(launcher, near.count, RankNearest<T>{search, near, output});
}

}  // namespace openmm_gnn::cuda
