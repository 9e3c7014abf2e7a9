// Atoms sorted by cell.
#pragma once

#include <vector>

#include "neighbors/cell_grid.h"
#include "base/cpu/buffer.h"

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
  T box_element(int k, int d) const { return box != nullptr ? box[k * box_row_stride + d * box_column_stride] : T(0); }
};

template <typename T>
class CellList {
 public:
  Lattice lattice;
  CellGrid grid;
  int64_t num_atoms = 0;

  // Sorted by cell, within a cell by atom.
  Buffer<T> x, y, z;
  Buffer<int32_t> key;    // twice the atom at a sorted place
  Buffer<int32_t> start;  // (cells + 1,) first sorted place of each cell
  Buffer<int32_t> wrap;   // (atoms, 3), by atom: wrapped = raw - wrap @ box

  // Sorts the atoms of `system` into cells for `cutoff`. Throws std::runtime_error that names the atom or the box.
  void build(const System<T>& system, double cutoff, bool keep_wraps, int num_threads);

  int32_t atom(int64_t place) const { return key[place] >> 1; }

  // The real cell and the image behind place p - depth of the endless row of cells along direction k.
  int32_t real_cell(int k, int32_t p) const { return real_[k][static_cast<size_t>(p)]; }
  int32_t image(int k, int32_t p) const { return image_[k][static_cast<size_t>(p)]; }

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

// The message for an atom whose position cannot be used.
template <typename T>
[[noreturn]] void fail_bad_position(const System<T>& system, int64_t atom);

}  // namespace openmm_gnn
