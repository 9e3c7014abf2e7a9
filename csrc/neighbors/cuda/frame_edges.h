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

#include "neighbors/pair_rules.h"
#include "neighbors/cuda/frame_search.h"

namespace openmm_gnn::cuda {

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
  static constexpr int kThreads = 128;
  using Shared = NoShared;
  FrameSearch<T> search;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    const int64_t first = block.index() * kThreads;
    block.each_thread([&](int thread) {
      const int64_t atom = first + thread;
      if (atom >= search.num_atoms) return;
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
    });
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
  static constexpr int kThreads = 128;
  using Shared = NoShared;
  FrameSearch<T> search;
  Action action;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    if (!search.report->active()) return;
    const int64_t first = block.index() * kThreads;
    block.each_thread([&](int thread) {
      const int64_t part = (first + thread) / search.num_atoms, target = first + thread - part * search.num_atoms;
      if (part >= search.strands) return;
      const FrameSpan span = search.spans[target];
      const int64_t length = blocks_of(span.last - span.first, search.strands);
      const int64_t begin = span.first + part * length, stop = begin + length < span.last ? begin + length : span.last;
      const SearchAtom<T> own = search.atoms[target];
      const int64_t strand = target * search.strands + part;
      typename Action::Thread state;
      action.begin(state, strand);
      for (int64_t source = begin; source < stop; ++source) {
        const SearchAtom<T> other = search.atoms[source];
        const T squared = squared_length(other.x - own.x, other.y - own.y, other.z - own.z);
        // An atom hears itself whatever the cutoff, even one whose square is too small to be told from zero.
        if (!within(squared, search.cutoff) && source != target) continue;
        if (!action.edge(state, source, target, squared)) break;
      }
      action.end(state, strand);
    });
  }

 private:
  static OPENMM_GNN_HOST_DEVICE int64_t blocks_of(int64_t work, int64_t parts) { return (work + parts - 1) / parts; }
};

// One thread = one row: how many of its edges are kept. By index the first of them are: later strands may write less.
template <typename T>
struct LimitRows {
  static constexpr int kThreads = 128;
  using Shared = NoShared;
  FrameSearch<T> search;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    if (!search.report->active()) return;
    const int64_t first = block.index() * kThreads;
    block.each_thread([&](int thread) {
      const int64_t atom = first + thread;
      if (atom >= search.num_atoms) return;
      int64_t left = search.most;
      for (int64_t strand = atom * search.strands; strand < (atom + 1) * search.strands; ++strand) {
        const int64_t count = search.strand_count[strand], taken = count < left ? count : left;
        left -= taken;
        if (!search.nearest) search.strand_count[strand] = static_cast<int32_t>(taken);
      }
      if (search.nearest) search.row_count[atom] = static_cast<int32_t>(search.most - left);
    });
  }
};

// One thread = one of them: those of its row that are nearer, or as near and earlier, go before it.
template <typename T>
struct RankNearest {
  static constexpr int kThreads = 128;
  using Shared = NoShared;
  FrameSearch<T> search;
  NearEdges<T> near;
  EdgeIndex<T> output;

  template <class Block>
  OPENMM_GNN_HOST_DEVICE void run(Block& block, Shared&) const {
    const int64_t first = block.index() * kThreads;
    block.each_thread([&](int thread) {
      const int64_t place = first + thread;
      if (place >= near.count) return;
      const int64_t target = near.targets[place];
      const int64_t stop = search.row_start(target + 1, near.count);
      const T mine = near.distances[place];
      int64_t rank = 0;
      for (int64_t other = search.row_start(target, near.count); other < stop; ++other) {
        const T distance = near.distances[other];
        rank += distance < mine || (distance == mine && other < place) ? 1 : 0;
      }
      if (rank < search.most) output.write(search.row_scan.start(target) + rank, near.sources[place], target, mine);
    });
  }
};

struct FinishFound {
  EdgeReport* report;
  OPENMM_GNN_HOST_DEVICE void operator()(int64_t sum) const { report->found = sum; }
};

struct FinishKept {
  EdgeReport* report;
  OPENMM_GNN_HOST_DEVICE void operator()(int64_t sum) const { report->kept = sum; }
};

// ---- the launches; `Launcher` is a CUDA stream (launch.h) or the grid emulator --------------------------------------

// Afterwards search.report holds the numbers of edges and the errors.
template <typename T, class Launcher>
void count_frame_edges(Launcher& launcher, const FrameSearch<T>& search) {
  const int64_t rows = blocks_for(search.num_atoms, PrepareFrames<T>::kThreads);
  const int64_t strands = blocks_for(search.num_atoms * search.strands, SearchFrames<T, CountEdges<T>>::kThreads);
  launcher.clear(search.report, sizeof(EdgeReport));
  launcher.launch(rows, PrepareFrames<T>{search});
  launcher.launch(strands, SearchFrames<T, CountEdges<T>>{search, {search.strand_count}});
  if (search.most > 0) launcher.launch(rows, LimitRows<T>{search});
  launcher.launch(search.strand_scan.num_blocks,
                  ScanBlocks<EdgeReport>{search.report, search.strand_count, search.strand_scan});
  launcher.launch(1, ScanTotals<EdgeReport, FinishFound>{search.report, search.strand_scan, {search.report}});
  if (!search.nearest) return;
  launcher.launch(search.row_scan.num_blocks, ScanBlocks<EdgeReport>{search.report, search.row_count, search.row_scan});
  launcher.launch(1, ScanTotals<EdgeReport, FinishKept>{search.report, search.row_scan, {search.report}});
}

template <typename T, class Output, class Launcher>
void write_all_edges(Launcher& launcher, const FrameSearch<T>& search, const Output& output) {
  using Kernel = SearchFrames<T, WriteEdges<T, Output>>;
  launcher.launch(blocks_for(search.num_atoms * search.strands, Kernel::kThreads),
                  Kernel{search, {search.strand_scan, search.strand_count, output}});
}

// `near` is for the nearest alone.
template <typename T, class Launcher>
void write_frame_edges(Launcher& launcher, const FrameSearch<T>& search, const NearEdges<T>& near,
                       const EdgeIndex<T>& output) {
  if (!search.nearest) {
    write_all_edges(launcher, search, output);
    return;
  }
  write_all_edges(launcher, search, near);
  launcher.launch(blocks_for(near.count, RankNearest<T>::kThreads), RankNearest<T>{search, near, output});
}

}  // namespace openmm_gnn::cuda
