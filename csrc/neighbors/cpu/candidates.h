// What the atoms of one cell are tested against: everything within reach, images in place, as a structure of arrays.
//
// Gathered once per cell, so that the test of each of its atoms runs over full vectors without a gap.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "neighbors/cpu/cell_list.h"

namespace openmm_gnn {

template <typename T>
struct Candidates {
  int64_t count = 0;
  int64_t self = 0;      // the place of the cell's own first atom
  bool shifted = false;  // whether any candidate is in another image
  Buffer<T> x, y, z;
  Buffer<T> shift_x, shift_y, shift_z;  // lattice translation, filled only if shifted
  Buffer<int32_t> key;                  // 2 j, plus 1 if the image is lexicographically positive
  Buffer<int32_t> run;                  // which of `images`, filled only if asked for
  struct Image {
    int32_t s[3];
  };
  std::vector<Image> images;

  __attribute__((noinline)) void make_room(int64_t wanted) {
    x.grow(wanted, count);
    y.grow(wanted, count);
    z.grow(wanted, count);
    key.grow(wanted, count);
    run.grow(wanted, count);
    shift_x.grow(wanted, count);
    shift_y.grow(wanted, count);
    shift_z.grow(wanted, count);
  }
};

// Copies `count` values in whole vectors of 64 bytes; both sides have kPadding values of room behind them.
template <typename T>
OPENMM_GNN_HOST_DEVICE void copy_padded(T* to, const T* from, int64_t count) {
  constexpr int64_t kStep = 64 / sizeof(T);
  for (int64_t k = 0; k < count; k += kStep) std::memcpy(to + k, from + k, 64);
}

template <typename T>
OPENMM_GNN_HOST_DEVICE void fill_padded(T* to, T value, int64_t count) {
  constexpr int64_t kStep = 64 / sizeof(T);
  for (int64_t k = 0; k < count; k += kStep) {
    for (int64_t l = 0; l < kStep; ++l) to[k + l] = value;
  }
}

// Adds the atoms at sorted places begin ... end - 1 in image (ix, iy, iz).
template <typename T, bool kRuns>
OPENMM_GNN_HOST_DEVICE void append(Candidates<T>& c, const CellList<T>& cells, int64_t begin, int64_t end, int32_t ix,
                                   int32_t iy, int32_t iz) {
  const int64_t length = end - begin, at = c.count;
  if (at + length > c.x.capacity()) c.make_room(at + length);
  copy_padded(c.x.get() + at, cells.x.get() + begin, length);
  copy_padded(c.y.get() + at, cells.y.get() + begin, length);
  copy_padded(c.z.get() + at, cells.z.get() + begin, length);
  const bool home = ix == 0 && iy == 0 && iz == 0;
  if (home) {
    copy_padded(c.key.get() + at, cells.key.get() + begin, length);
  } else {
    const int32_t positive = ix != 0 ? ix > 0 : iy != 0 ? iy > 0 : iz > 0;
    const int32_t* from = cells.key.get() + begin;
    int32_t* to = c.key.get() + at;
    for (int64_t k = 0; k < length; k += 16) {
      for (int64_t l = 0; l < 16; ++l) to[k + l] = from[k + l] | positive;
    }
  }
  if (!home && !c.shifted) {  // those before this one are at home
    fill_padded(c.shift_x.get(), T(0), at);
    fill_padded(c.shift_y.get(), T(0), at);
    fill_padded(c.shift_z.get(), T(0), at);
    c.shifted = true;
  }
  if (c.shifted) {
    T shift[3];
    for (int d = 0; d < 3; ++d) {
      shift[d] = static_cast<T>(ix * cells.lattice.rows[0][d] + iy * cells.lattice.rows[1][d] +
                                iz * cells.lattice.rows[2][d]);
    }
    fill_padded(c.shift_x.get() + at, shift[0], length);
    fill_padded(c.shift_y.get() + at, shift[1], length);
    fill_padded(c.shift_z.get() + at, shift[2], length);
  }
  if (kRuns) {
    fill_padded(c.run.get() + at, static_cast<int32_t>(c.images.size()), length);
    c.images.push_back({{ix, iy, iz}});
  }
  c.count = at + length;
}

// Collects the candidates of cell (cx, cy, cz).
template <typename T, bool kRuns>
OPENMM_GNN_HOST_DEVICE void gather_candidates(Candidates<T>& c, const CellList<T>& cells, int32_t cx, int32_t cy,
                                              int32_t cz) {
  const CellGrid& grid = cells.grid;
  c.count = 0;
  c.shifted = false;
  c.images.clear();
  // Place p of an unrolled row is cell p - depth, so the cells around cell k are places k ... k + 2 depth.
  for (int32_t pz = cz; pz <= cz + 2 * grid.depth[2]; ++pz) {
    const int32_t iz = cells.image(2, pz);
    if (!grid.periodic && iz != 0) continue;
    for (int32_t py = cy; py <= cy + 2 * grid.depth[1]; ++py) {
      const int32_t iy = cells.image(1, py);
      if (!grid.periodic && iy != 0) continue;
      const int64_t row = cell_index(grid, 0, cells.real_cell(1, py), cells.real_cell(2, pz));
      const bool own_row = pz == cz + grid.depth[2] && py == cy + grid.depth[1];
      const int32_t last = cx + 2 * grid.depth[0];
      for (int32_t px = cx; px <= last;) {  // one contiguous run for each image of the row
        const int32_t ix = cells.image(0, px);
        const int32_t first_cell = cells.real_cell(0, px);
        const int32_t length = std::min(grid.count[0] - first_cell, last - px + 1);
        px += length;
        if (!grid.periodic && ix != 0) continue;
        const int64_t begin = cells.start[row + first_cell];
        const int64_t end = cells.start[row + first_cell + length];
        if (own_row && ix == 0) c.self = c.count + cells.start[row + cx] - begin;
        if (end > begin) append<T, kRuns>(c, cells, begin, end, ix, iy, iz);
      }
    }
  }
  // The last vector is filled up with candidates that are never close.
  for (int64_t k = c.count; k < c.count + 16; ++k) {
    c.x[k] = std::numeric_limits<T>::infinity();
    c.key[k] = 0;
  }
}

}  // namespace openmm_gnn
