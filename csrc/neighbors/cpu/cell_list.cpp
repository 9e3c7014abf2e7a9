#include "neighbors/cpu/cell_list.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "base/cpu/threads.h"

namespace openmm_gnn {

template <typename T>
void fail_bad_position(const System<T>& system, int64_t atom) {
  const T* p = system.atom(atom);
  const T r[3] = {p[0], p[system.component_stride], p[2 * system.component_stride]};
  const bool finite = std::isfinite(r[0]) && std::isfinite(r[1]) && std::isfinite(r[2]);
  std::ostringstream text;
  text << "the position of atom " << atom << " is (" << r[0] << ", " << r[1] << ", " << r[2] << "): "
       << (finite ? "it is more than a million box lengths away; wrap it into the box first"
                  : "it must be finite; the simulation has probably blown up before this step");
  throw std::runtime_error(text.str());
}

template <typename T>
void CellList<T>::choose_lattice(const System<T>& system, double cutoff) {
  if (system.box != nullptr) {
    if (!periodic_lattice(system.box, system.box_row_stride, system.box_column_stride, lattice)) {
      std::ostringstream text;
      text << "box_vectors";
      for (int k = 0; k < 3; ++k) {
        const double* row = lattice.rows[k];
        text << (k ? ", (" : " (") << row[0] << ", " << row[1] << ", " << row[2] << ")";
      }
      text << " span no volume: give three finite, independent vectors, or no box for an open boundary";
      throw std::runtime_error(text.str());
    }
    return;
  }
  double low[3] = {0, 0, 0}, high[3] = {0, 0, 0};
  for (int d = 0; d < 3 && num_atoms > 0; ++d) {
    const T* p = system.positions + d * system.component_stride;
    T least = p[0], most = p[0];
    for (int64_t a = 1; a < num_atoms; ++a) {
      const T value = p[a * system.atom_stride];
      least = value < least ? value : least;
      most = value > most ? value : most;
    }
    low[d] = static_cast<double>(least);
    high[d] = static_cast<double>(most);
  }
  if (!open_lattice(low, high, cutoff, lattice)) {
    for (int64_t a = 0; a < num_atoms; ++a) {
      for (int d = 0; d < 3; ++d) {
        if (!(std::abs(static_cast<double>(system.atom(a)[d * system.component_stride])) < 1e299)) {
          fail_bad_position(system, a);
        }
      }
    }
    throw std::runtime_error("the positions span an infinite volume");
  }
}

// For each direction, the real cell and image of places -depth ... count + depth - 1.
template <typename T>
void CellList<T>::unroll_rows() {
  for (int k = 0; k < 3; ++k) {
    const int32_t places = grid.count[k] + 2 * grid.depth[k];
    real_[k].resize(static_cast<size_t>(places));
    image_[k].resize(static_cast<size_t>(places));
    for (int32_t p = 0; p < places; ++p) {
      const int32_t cell = p - grid.depth[k];
      const int32_t image = floor_divide(cell, grid.count[k]);
      image_[k][p] = image;
      real_[k][p] = cell - image * grid.count[k];
    }
  }
}

template <typename T>
void CellList<T>::build(const System<T>& system, double cutoff, bool keep_wraps, int num_threads) {
  num_atoms = system.num_atoms;
  choose_lattice(system, cutoff);
  if (!plan_grid(lattice, cutoff, std::numeric_limits<T>::epsilon(), num_atoms, num_atoms + 64, grid)) {
    std::ostringstream text;
    text << "the cutoff " << cutoff << " reaches over more than a million images of the box, whose heights are "
         << lattice.heights[0] << ", " << lattice.heights[1] << ", " << lattice.heights[2]
         << ", or finds more than 1e12 candidates of pairs: reduce the cutoff or enlarge the box; are both in the same unit?";
    throw std::runtime_error(text.str());
  }
  unroll_rows();

  placed_.reserve(num_atoms);
  if (keep_wraps) wrap.reserve(3 * num_atoms);
  histogram_.reserve(grid.total * num_threads);
  std::vector<int64_t> bad(static_cast<size_t>(num_threads), num_atoms);
  for_parts(num_threads, num_atoms, [&](int thread, int64_t begin, int64_t end) {
    const Lattice local = lattice;
    const int64_t stride = system.component_stride;
    int32_t* count = histogram_.get() + thread * grid.total;
    std::memset(count, 0, static_cast<size_t>(grid.total) * sizeof(int32_t));
    for (int64_t a = begin; a < end; ++a) {
      const T* p = system.atom(a);
      const WrappedAtom<T> wrapped = wrap_atom(local, p[0], p[stride], p[2 * stride]);
      if (!wrapped.valid) {
        bad[static_cast<size_t>(thread)] = std::min(bad[static_cast<size_t>(thread)], a);
        continue;
      }
      const int32_t cell = static_cast<int32_t>(cell_of(grid, wrapped.fractional));
      placed_[a] = Placed{wrapped.position[0], wrapped.position[1], wrapped.position[2], cell};
      if (keep_wraps) std::memcpy(wrap.get() + 3 * a, wrapped.wrap, sizeof(wrapped.wrap));
      ++count[cell];
    }
  });
  const int64_t first_bad = *std::min_element(bad.begin(), bad.end());
  if (first_bad < num_atoms) fail_bad_position(system, first_bad);
  sort(num_threads);
}

// Counting sort. Each thread owns a part of the atoms and, in each cell, the places after those of earlier parts, so
// the order is that of the atoms whatever the number of threads.
template <typename T>
void CellList<T>::sort(int num_threads) {
  start.reserve(grid.total + 1);
  int32_t place = 0;
  for (int64_t cell = 0; cell < grid.total; ++cell) {
    start[cell] = place;
    for (int thread = 0; thread < num_threads; ++thread) {
      int32_t& count = histogram_[thread * grid.total + cell];
      const int32_t here = count;
      count = place;
      place += here;
    }
  }
  start[grid.total] = place;

  x.reserve(num_atoms);
  y.reserve(num_atoms);
  z.reserve(num_atoms);
  key.reserve(num_atoms);
  for_parts(num_threads, num_atoms, [&](int thread, int64_t begin, int64_t end) {
    int32_t* next = histogram_.get() + thread * grid.total;
    for (int64_t a = begin; a < end; ++a) {
      const Placed& p = placed_[a];
      const int32_t to = next[p.cell]++;
      x[to] = p.x;
      y[to] = p.y;
      z[to] = p.z;
      key[to] = static_cast<int32_t>(2 * a);
    }
  });
}

template class CellList<float>;
template class CellList<double>;
template void fail_bad_position(const System<float>&, int64_t);
template void fail_bad_position(const System<double>&, int64_t);

}  // namespace openmm_gnn
