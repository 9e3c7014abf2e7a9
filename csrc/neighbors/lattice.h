// The periodic cell: heights, inverse, and the lattice translation that brings an atom into the cell.
//
// Everything here is in double precision, also for float32 positions: it is done once per atom, and a float32 position
// some boxes away has no digits to lose.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/macros.h"

namespace openmm_gnn {

// Atoms further out than this many cells are refused: at float32 their place in the cell is no longer known.
constexpr double kMaxWrap = 1048576.0;

// |det| of the unit vectors below this is no cell: float32 rounding alone makes coplanar vectors reach 1e-7.
constexpr double kMinUnitVolume = 1e-6;

// A cell spanned by rows a, b, c, of either handedness. With periodic == false it is the bounding box of the atoms.
struct Lattice {
  double rows[3][3];     // rows[k] = lattice vector k
  double inverse[3][3];  // fractional s_k = sum_d (x_d - origin_d) * inverse[d][k]
  double heights[3];     // distance between the two faces that vector k joins
  double origin[3];
  bool periodic;
};

// Fills the inverse and the heights from `rows`. False if the vectors are not finite or span no volume.
OPENMM_GNN_HOST_DEVICE bool complete_lattice(Lattice& lattice) {
  const double(*h)[3] = lattice.rows;
  double length[3], cross[3][3];
  for (int k = 0; k < 3; ++k) {
    const double* b = h[(k + 1) % 3];
    const double* c = h[(k + 2) % 3];
    cross[k][0] = b[1] * c[2] - b[2] * c[1];
    cross[k][1] = b[2] * c[0] - b[0] * c[2];
    cross[k][2] = b[0] * c[1] - b[1] * c[0];
    length[k] = sqrt(h[k][0] * h[k][0] + h[k][1] * h[k][1] + h[k][2] * h[k][2]);
  }
  const double det = h[0][0] * cross[0][0] + h[0][1] * cross[0][1] + h[0][2] * cross[0][2];
  const double scale = length[0] * length[1] * length[2];
  // Written so that NaN and infinity fail.
  if (!(scale > 0 && scale < 1e300 && fabs(det) >= kMinUnitVolume * scale)) return false;
  for (int k = 0; k < 3; ++k) {
    const double area = sqrt(cross[k][0] * cross[k][0] + cross[k][1] * cross[k][1] + cross[k][2] * cross[k][2]);
    lattice.heights[k] = fabs(det) / area;
    for (int d = 0; d < 3; ++d) lattice.inverse[d][k] = cross[k][d] / det;
  }
  return true;
}

// A periodic cell from the nine numbers of `box_vectors` (rows a, b, c). False if it is degenerate.
template <typename T>
OPENMM_GNN_HOST_DEVICE bool periodic_lattice(const T* box, int64_t row_stride, int64_t column_stride,
                                             Lattice& lattice) {
  for (int k = 0; k < 3; ++k) {
    for (int d = 0; d < 3; ++d) lattice.rows[k][d] = static_cast<double>(box[k * row_stride + d * column_stride]);
    lattice.origin[k] = 0;
  }
  lattice.periodic = true;
  return complete_lattice(lattice);
}

// The bounding box of atoms without periodicity, a little wider than they are and never flat.
OPENMM_GNN_HOST_DEVICE bool open_lattice(const double* low, const double* high, double cutoff, Lattice& lattice) {
  for (int k = 0; k < 3; ++k) {
    for (int d = 0; d < 3; ++d) lattice.rows[k][d] = 0;
    const double extent = high[k] - low[k];
    lattice.rows[k][k] = extent > cutoff ? extent : cutoff;
    lattice.origin[k] = low[k];
  }
  lattice.periodic = false;
  // Three edges of 1e100 have no volume in double precision; such atoms are further apart than any cutoff needs.
  for (int k = 0; k < 3; ++k) {
    if (!(lattice.rows[k][k] < 1e300)) return false;
    lattice.heights[k] = lattice.rows[k][k];
    for (int d = 0; d < 3; ++d) lattice.inverse[d][k] = d == k ? 1.0 / lattice.rows[k][k] : 0.0;
  }
  return true;
}

// An atom brought into the cell: position = raw - wrap @ rows, and its fractional place, in [0, 1) up to rounding.
template <typename T>
struct WrappedAtom {
  T position[3];
  double fractional[3];
  int32_t wrap[3];
  bool valid;  // false for NaN, infinity, and atoms more than kMaxWrap cells away
};

template <typename T>
OPENMM_GNN_HOST_DEVICE WrappedAtom<T> wrap_atom(const Lattice& lattice, T x, T y, T z) {
  WrappedAtom<T> atom;
  const double raw[3] = {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)};
  const double r[3] = {raw[0] - lattice.origin[0], raw[1] - lattice.origin[1], raw[2] - lattice.origin[2]};
  double whole[3] = {0, 0, 0};
  atom.valid = true;
  for (int k = 0; k < 3; ++k) {
    const double s = r[0] * lattice.inverse[0][k] + r[1] * lattice.inverse[1][k] + r[2] * lattice.inverse[2][k];
    const double limit = lattice.periodic ? kMaxWrap : 1e300;
    if (!(fabs(s) <= limit)) atom.valid = false;  // before the cast: NaN and huge numbers have no integer
    int32_t wrap = 0;
    if (lattice.periodic && atom.valid) {
      wrap = static_cast<int32_t>(s);  // towards zero; one less where that was upwards
      wrap -= s < wrap ? 1 : 0;
    }
    whole[k] = wrap;
    atom.fractional[k] = s - whole[k];
    atom.wrap[k] = wrap;
  }
  for (int d = 0; d < 3; ++d) {
    const double back = whole[0] * lattice.rows[0][d] + whole[1] * lattice.rows[1][d] + whole[2] * lattice.rows[2][d];
    atom.position[d] = static_cast<T>(raw[d] - back);
  }
  return atom;
}

// How an atom has moved since the reference positions: raw - reference = remainder + jump @ rows, with the remainder
// nearest to zero. OpenMM moves whole molecules by lattice vectors between steps; only the remainder is motion.
template <typename T>
struct Displacement {
  T unwrapped[3];  // raw - jump @ rows: continuous with the reference position
  T squared;       // |remainder|^2; NaN if the position or the reference is
  int32_t jump[3];
};

template <typename T>
OPENMM_GNN_HOST_DEVICE Displacement<T> displacement_since(const Lattice& lattice, const T* raw, const T* reference) {
  Displacement<T> result;
  double moved[3], whole[3] = {0, 0, 0};
  for (int d = 0; d < 3; ++d) moved[d] = static_cast<double>(raw[d]) - static_cast<double>(reference[d]);
  if (lattice.periodic) {
    for (int k = 0; k < 3; ++k) {
      const double s =
          moved[0] * lattice.inverse[0][k] + moved[1] * lattice.inverse[1][k] + moved[2] * lattice.inverse[2][k];
      const double nearest = floor(s + 0.5);
      // A jump too far to count stays in the remainder, which then asks for a rebuild.
      whole[k] = fabs(nearest) <= kMaxWrap ? nearest : 0.0;
    }
  }
  double squared = 0;
  for (int d = 0; d < 3; ++d) {
    const double back = whole[0] * lattice.rows[0][d] + whole[1] * lattice.rows[1][d] + whole[2] * lattice.rows[2][d];
    const double remainder = moved[d] - back;
    squared += remainder * remainder;
    result.unwrapped[d] = static_cast<T>(static_cast<double>(raw[d]) - back);
    result.jump[d] = static_cast<int32_t>(whole[d]);
  }
  result.squared = static_cast<T>(squared);
  return result;
}

// True when the list must be rebuilt for this atom: it has moved by half the skin, less what rounding of positions and
// distances may hide. Written so that NaN asks for a rebuild.
template <typename T>
OPENMM_GNN_HOST_DEVICE bool has_moved(T squared_displacement, T skin) {
  return !(squared_displacement <= T(0.2499) * skin * skin);
}

}  // namespace openmm_gnn
