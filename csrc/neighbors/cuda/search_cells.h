// Cell-list search for large systems (Quentrec and Brot, J. Comput. Phys. 13, 430 (1973),
// doi:10.1016/0021-9991(73)90046-6), in any cell and with any number of images.
//
// One thread = one strand: one row (atom i) against every strands-th atom of each run, a run being the neighbouring
// cells along the first lattice vector, contiguous in memory. Threads follow the order of the cells, so that a warp's
// rows lie in one or two cells and read the same candidates: one load serves all of them. Above 131,072 atoms a row has
// one strand.
//
// Candidates are taken 32 at a time. The pass that counts keeps which of them are pairs as the bits of a word, kHitWords
// words for each strand; the pass that writes reads the words and visits the bits that are set. Chunks beyond those words,
// in dense systems or at the faces of a box, are tested again. Cost: 27 cells of candidates per atom (6.4 candidates per
// pair), 9 runs of two table look-ups each in either pass; a candidate is one 16-byte load (32 at float64) and some 10
// operations; a pair costs 8 to 28 written bytes and, in the second pass, 16 read, and 24 more where shifts are asked for.
#pragma once

#include "neighbors/cuda/pair_actions.h"

namespace openmm_gnn::cuda {

// What makes a candidate within the cutoff a pair, in one image of the box: its number is above `above` and is not `own`.
struct Order {
  int64_t above, own;
};

// As is_pair has it, for all candidates of an atom in an image.
OPENMM_GNN_HOST_DEVICE Order order_of(int64_t atom, const int32_t (&image)[3], bool full) {
  const bool real = image[0] == 0 && image[1] == 0 && image[2] == 0;
  if (full) return {-1, real ? atom : -1};
  // Atoms above this one, and its own image where that is the one of the two that a half list keeps.
  return {in_half_list(atom, atom, image[0], image[1], image[2]) ? atom - 1 : atom, -1};
}

template <typename T, class Action>
struct SearchCells {
  Workspace<T> work;
  T cutoff;
  bool full;
  Action action;

  struct Row {
    SearchAtom<T> atom;
    int strand;
    int64_t item;
    int32_t chunks;  // so far
    typename Action::Thread state;
  };

  // Which of `count` <= 32 candidates, from `place` on, are pairs. The tests are those of is_pair, in its order.
  template <bool kShifted>
  OPENMM_GNN_HOST_DEVICE uint32_t test_chunk(const SearchAtom<T>& atom, int64_t place, int count, const T (&offset)[3],
                                             const Order& order) const {
    using Index = typename AtomIndex<T>::Type;
    const Index above = static_cast<Index>(order.above), own = static_cast<Index>(order.own);
    const SearchAtom<T>* candidate = work.sorted + place;
    uint32_t hits = 0;
    for (uint32_t bit = 1; count > 0; --count, bit <<= 1, candidate += work.strands) {
      const SearchAtom<T> other = *candidate;
      T x = other.x - atom.x, y = other.y - atom.y, z = other.z - atom.z;
      if (kShifted) {
        x += offset[0];
        y += offset[1];
        z += offset[2];
      }
      const bool hit = within(squared_length(x, y, z), cutoff) & (other.index > above) & (other.index != own);
      hits |= hit ? bit : 0;
    }
    return hits;
  }

  // The cells first .. last, contiguous, seen in the image `pair.image`.
  OPENMM_GNN_HOST_DEVICE void search_run(Row& row, int64_t first, int64_t last, const T (&offset)[3],
                                         FoundPair<T>& pair) const {
    const int64_t end = work.cell_scan.start(last + 1);
    const Order order = order_of(row.atom.index, pair.image, full);
    const bool shifted = pair.image[0] != 0 || pair.image[1] != 0 || pair.image[2] != 0;
    int64_t place = work.cell_scan.start(first) + row.strand;
    for (; place < end; place += int64_t(32) * work.strands, ++row.chunks) {
      const int64_t left = (end - place + work.strands - 1) >> work.strand_bits;
      const int count = left < 32 ? static_cast<int>(left) : 32;
      uint32_t* word = row.chunks < kHitWords ? work.hits + row.chunks * work.num_strands + row.item : nullptr;
      uint32_t hits;
      if (Action::kVisits && word != nullptr) {
        hits = *word;
      } else {
        hits = shifted ? test_chunk<true>(row.atom, place, count, offset, order)
                       : test_chunk<false>(row.atom, place, count, offset, order);
        if (!Action::kVisits && word != nullptr) *word = hits;
      }
      if constexpr (Action::kVisits) {
        for (; hits != 0; hits &= hits - 1) {
          measure(row.atom, work.sorted[place + int64_t(lowest_bit(hits)) * work.strands], offset, pair);
          action.pair(row.state, pair);
        }
      } else {
        action.count(row.state, bits_of(hits));
      }
    }
  }

  OPENMM_GNN_HOST_DEVICE void search_periodic(Row& row, int64_t cell) const {
    const Plan<T>& plan = *work.plan;
    const CellGrid& grid = plan.grid;
    const int32_t x = static_cast<int32_t>(cell % grid.count[0]);
    const int64_t line = cell / grid.count[0];
    const int32_t y = static_cast<int32_t>(line % grid.count[1]);
    const int32_t z = static_cast<int32_t>(line / grid.count[1]);
    FoundPair<T> pair;
    for (int32_t dz = -grid.depth[2]; dz <= grid.depth[2]; ++dz) {
      pair.image[2] = floor_divide(z + dz, grid.count[2]);
      const int32_t real_z = z + dz - pair.image[2] * grid.count[2];
      for (int32_t dy = -grid.depth[1]; dy <= grid.depth[1]; ++dy) {
        pair.image[1] = floor_divide(y + dy, grid.count[1]);
        const int32_t real_y = y + dy - pair.image[1] * grid.count[1];
        const int64_t line_start = cell_index(grid, 0, real_y, real_z);
        const int32_t low = x - grid.depth[0], high = x + grid.depth[0];
        const int32_t last_image = floor_divide(high, grid.count[0]);
        for (pair.image[0] = floor_divide(low, grid.count[0]); pair.image[0] <= last_image; ++pair.image[0]) {
          const int32_t shifted = pair.image[0] * grid.count[0];
          const int32_t begin = low > shifted ? low - shifted : 0;
          const int32_t end = high - shifted < grid.count[0] - 1 ? high - shifted : grid.count[0] - 1;
          T offset[3];
          for (int d = 0; d < 3; ++d) offset[d] = lattice_offset<T>(plan.lattice, pair.image, d);
          search_run(row, line_start + begin, line_start + end, offset, pair);
        }
      }
    }
  }

  // At an open boundary: three neighbouring cells of the ring for each of the nine (dy, dz).
  OPENMM_GNN_HOST_DEVICE void search_ring(Row& row, int64_t cell) const {
    const int64_t total = work.plan->grid.total, stride = work.plan->ring_stride;
    const T nowhere[3] = {0, 0, 0};
    FoundPair<T> pair;
    for (int k = 0; k < 3; ++k) pair.image[k] = 0;
    for (int dz = -1; dz <= 1; ++dz) {
      for (int dy = -1; dy <= 1; ++dy) {
        const int64_t centre = (cell + (dz * stride + dy) * stride + total) % total;
        const int64_t low = centre - 1, high = centre + 1;
        if (low < 0) search_run(row, total - 1, total - 1, nowhere, pair);
        search_run(row, low < 0 ? 0 : low, high < total ? high : total - 1, nowhere, pair);
        if (high == total) search_run(row, 0, 0, nowhere, pair);
      }
    }
  }

  OPENMM_GNN_HOST_DEVICE void at(int64_t item) const {
    if (!action.wanted(*work.plan)) return;
    Row row;
    row.atom = work.sorted[item / work.strands];
    row.strand = static_cast<int>(item % work.strands);
    row.item = item;
    row.chunks = 0;
    const int64_t atom = row.atom.index;
    const int64_t strand = atom * work.strands + row.strand;  // the results go by atom, not by cell
    action.begin(row.state, strand);
    if (work.plan->grid.periodic) {
      search_periodic(row, work.cell[atom]);
    } else {
      search_ring(row, work.cell[atom]);
    }
    action.end(row.state, strand);
  }
};

}  // namespace openmm_gnn::cuda
