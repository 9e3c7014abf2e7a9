// Atoms sorted by cell, and the candidates that one cell's atoms are tested against.
#pragma once

#include <vector>

#include "../common/cell_grid.h"
#include "buffer.h"

namespace openmm_gnn {

// Positions and box as a tensor gives them.
template <typename T>
struct System {
  const T* positions;
  int64_t num_atoms;
  int64_t atom_stride, component_stride;
  const T* box;  // null: open boundary
  int64_t box_row_stride, box_column_stride;

  const T* atom(int64_t index) const { return positions + index * atom_stride; }
};

template <typename T>
class CellList {
 public:
  Lattice lattice;
  CellGrid grid;
  int64_t num_atoms = 0;

  // Sorted by cell, within a cell by atom.
  Buffer<T> x, y, z;
  Buffer<int32_t> atom;   // the atom at a sorted place
  Buffer<int32_t> start;  // (cells + 1,) first sorted place of each cell
  Buffer<int32_t> wrap;   // (atoms, 3), by atom: wrapped = raw - wrap @ box

  // Sorts the atoms of `system` into cells for `cutoff`. Throws std::runtime_error that names the atom or the box.
  void build(const System<T>& system, double cutoff, bool keep_wraps, int num_threads);

  // The real cell and the image behind place p - depth of the endless row of cells along direction k.
  int32_t real_cell(int k, int32_t p) const { return real_[k][p]; }
  int32_t image(int k, int32_t p) const { return image_[k][p]; }

 private:
  struct Placed {
    T x, y, z;
    int32_t cell;
  };
  void choose_lattice(const System<T>& system, double cutoff);
  void unroll_rows();
  void sort(int num_threads);

  Buffer<Placed> placed_;
  Buffer<int32_t> histogram_;
  std::vector<int32_t> real_[3], image_[3];
};

// Everything within reach of one cell's atoms, images in place, as one structure of arrays.
template <typename T>
struct Candidates {
  int64_t count = 0;
  int64_t self = 0;      // the place of the cell's own first atom
  bool shifted = false;  // whether any candidate is in another image
  Buffer<T> x, y, z;
  Buffer<T> shift_x, shift_y, shift_z;  // lattice translation, filled only if shifted
  Buffer<int32_t> key;                  // 2 j, plus 1 if the image is lexicographically positive
  Buffer<int32_t> run;                  // which of `images`
  struct Image {
    int32_t s[3];
  };
  std::vector<Image> images;

  // Collects the candidates of cell (cx, cy, cz).
  void gather(const CellList<T>& cells, int32_t cx, int32_t cy, int32_t cz);

 private:
  void append(const CellList<T>& cells, int64_t begin, int64_t end, int32_t ix, int32_t iy, int32_t iz);
  void mark_unshifted();
  void make_room(int64_t count);
};

// The message for an atom whose position cannot be used.
template <typename T>
[[noreturn]] void fail_bad_position(const System<T>& system, int64_t atom);

}  // namespace openmm_gnn
