// The grid of cells: how many along each lattice vector, how far to search, which cell an atom is in.
//
// Along lattice vector k the cells are heights[k] / count[k] thick. A pair within the cutoff is at most depth[k] cells
// apart there, for any cell shape, and also where the cutoff exceeds the box: depth then reaches over several images.
#pragma once

#include "neighbors/lattice.h"

namespace openmm_gnn {

// Cells are thicker than the cutoff by this fraction, which outweighs the rounding of positions and of fractions.
constexpr double kCellMargin = 1e-4;

// Image cells to search around one cell are limited; beyond it a pair list is not what is wanted.
constexpr double kMaxImages = 1e6;

// So are the candidates of all atoms together, as far as they are evenly spread: more would take minutes, on a GPU too. A
// cutoff in the wrong unit asks for that.
constexpr double kMaxCandidates = 1e12;

struct CellGrid {
  int32_t count[3];  // cells along a, b, c; cell index = (z * count[1] + y) * count[0] + x, x fastest
  int32_t depth[3];  // cells to search to each side
  int64_t total;
  bool periodic;
};

// Fills the grid for `cutoff`, with at most about `max_cells` cells. `epsilon` is the rounding of the positions' type.
// False if the cutoff spans so many images of the box, or so many atoms, that no list can hold them.
OPENMM_GNN_HOST_DEVICE bool plan_grid(const Lattice& lattice, double cutoff, double epsilon, int64_t num_atoms,
                                      int64_t max_cells, CellGrid& grid) {
  double wanted[3], reach[3];
  for (int k = 0; k < 3; ++k) {
    reach[k] = cutoff * (1.0 + kCellMargin) + 16.0 * epsilon * lattice.heights[k];
    wanted[k] = floor(lattice.heights[k] / reach[k]);
    if (!(wanted[k] >= 1)) wanted[k] = 1;
  }
  // Too many cells, most of them empty: allow fewer along the long sides.
  const double limit = static_cast<double>(max_cells < 1 ? 1 : max_cells);
  double most = limit;
  while (fmin(wanted[0], most) * fmin(wanted[1], most) * fmin(wanted[2], most) > limit) most *= 0.9;
  for (int k = 0; k < 3; ++k) wanted[k] = most < 1 ? 1 : floor(fmin(wanted[k], most));
  double images = 1;
  for (int k = 0; k < 3; ++k) {
    double steps = ceil(reach[k] * wanted[k] / lattice.heights[k]);
    if (!lattice.periodic && steps > wanted[k] - 1) steps = wanted[k] - 1;
    images *= 2 * steps + 1;
    if (!(images <= kMaxImages)) return false;
    grid.count[k] = static_cast<int32_t>(wanted[k]);
    grid.depth[k] = static_cast<int32_t>(steps);
  }
  grid.total = static_cast<int64_t>(grid.count[0]) * grid.count[1] * grid.count[2];
  grid.periodic = lattice.periodic;
  const double atoms = static_cast<double>(num_atoms);
  return atoms * images * (atoms / static_cast<double>(grid.total)) <= kMaxCandidates;
}

// Index along one direction. A fraction that rounding brought to 1 (or below 0) belongs to the nearest cell.
OPENMM_GNN_HOST_DEVICE int32_t cell_along(double fractional, int32_t count) {
  const double place = fractional * count;
  if (!(place > 0)) return 0;
  const int32_t cell = place < count ? static_cast<int32_t>(place) : count - 1;
  return cell < count ? cell : count - 1;
}

OPENMM_GNN_HOST_DEVICE int64_t cell_index(const CellGrid& grid, int32_t x, int32_t y, int32_t z) {
  return (static_cast<int64_t>(z) * grid.count[1] + y) * grid.count[0] + x;
}

OPENMM_GNN_HOST_DEVICE int64_t cell_of(const CellGrid& grid, const double* fractional) {
  return cell_index(grid, cell_along(fractional[0], grid.count[0]), cell_along(fractional[1], grid.count[1]),
                    cell_along(fractional[2], grid.count[2]));
}

// The real cell behind place `cell` of the endless row, and the image it is: cell = real + image * count.
OPENMM_GNN_HOST_DEVICE int32_t floor_divide(int32_t cell, int32_t count) {
  const int32_t quotient = cell / count;
  return quotient - (cell % count < 0 ? 1 : 0);
}

}  // namespace openmm_gnn
