#include "find_pairs.h"

#include <limits>

#include "../common/pair_rules.h"
#include "row_scan.h"
#include "threads.h"

namespace openmm_gnn {

// Calls body(row, candidates, hits, atom) for every atom, cell by cell; the cells are shared among the threads.
template <typename T>
template <typename RowBody>
void PairFinder<T>::for_rows(const RowBody& body) {
  const CellGrid& grid = cells_.grid;
  const int64_t rows = static_cast<int64_t>(grid.count[1]) * grid.count[2];
  // Enough chunks to balance uneven rows, few enough to keep the threads apart.
  const int64_t chunk = question_.num_threads > 1 ? (rows + 63) / 64 : rows;
  for_chunks(question_.num_threads, rows, chunk, [&](int64_t begin, int64_t end) {
    Candidates<T> candidates;
    Hits<T> hits;
    for (int64_t r = begin; r < end; ++r) {
      const int32_t cy = static_cast<int32_t>(r % grid.count[1]), cz = static_cast<int32_t>(r / grid.count[1]);
      for (int32_t cx = 0; cx < grid.count[0]; ++cx) {
        const int64_t cell = cell_index(grid, cx, cy, cz);
        const int32_t first = cells_.start[cell], last = cells_.start[cell + 1];
        if (first == last) continue;
        candidates.gather(cells_, cx, cy, cz);
        hits.x.reserve(candidates.count);
        hits.y.reserve(candidates.count);
        hits.z.reserve(candidates.count);
        hits.j.reserve(candidates.count);
        hits.place.reserve(candidates.count);
        const T cutoff = static_cast<T>(question_.cutoff);
        for (int32_t a = first; a < last; ++a) {
          T& own = candidates.x[candidates.self + (a - first)];
          const T kept = own;
          own = std::numeric_limits<T>::infinity();  // an atom is no neighbour of itself in the same image
          const Row<T> row{&candidates,     cells_.x[a],     cells_.y[a],    cells_.z[a],
                           cutoff * cutoff, cells_.atom[a], !question_.full};
          body(row, candidates, hits, static_cast<int64_t>(cells_.atom[a]));
          own = kept;
        }
      }
    }
  });
}

template <typename T>
int64_t PairFinder<T>::count(const System<T>& system, const PairQuestion& question, bool keep_wraps) {
  question_ = question;
  cells_.build(system, question.cutoff, keep_wraps, question.num_threads);
  counts_.reserve(system.num_atoms);
  offsets_.reserve(system.num_atoms + 1);
  const RowKernels<T>& kernels = row_kernels<T>();
  for_rows([&](const Row<T>& row, const Candidates<T>&, Hits<T>&, int64_t atom) {
    counts_[atom] = static_cast<int32_t>(kernels.count(row));
  });
  int64_t total = 0;
  for (int64_t a = 0; a < system.num_atoms; ++a) {
    offsets_[a] = total;
    total += counts_[a];
  }
  offsets_[system.num_atoms] = total;
  return total;
}

template <typename T>
void PairFinder<T>::write_geometry(int64_t* i, int64_t* j, T* vectors, T* distances) {
  const RowKernels<T>& kernels = row_kernels<T>();
  for_rows([&](const Row<T>& row, const Candidates<T>&, Hits<T>& hits, int64_t atom) {
    const int64_t to = offsets_[atom];
    if (offsets_[atom + 1] == to) return;
    const int64_t found = kernels.collect(row, hits);
    kernels.write(hits, found, atom, GeometryRow<T>{i + to, j + to, vectors + 3 * to, distances + to});
  });
}

template <typename T>
template <typename Index>
void PairFinder<T>::write_shifts(Index* i, Index* j, int32_t* shifts) {
  const RowKernels<T>& kernels = row_kernels<T>();
  for_rows([&](const Row<T>& row, const Candidates<T>& candidates, Hits<T>& hits, int64_t atom) {
    int64_t to = offsets_[atom];
    if (offsets_[atom + 1] == to) return;
    const int64_t found = kernels.locate(row, hits);
    const int32_t* wrap_i = cells_.wrap.get() + 3 * atom;
    for (int64_t k = 0; k < found; ++k, ++to) {
      const int32_t place = hits.place[k];
      const int32_t neighbour = candidates.key[place] >> 1;
      const int32_t* image = candidates.images[static_cast<size_t>(candidates.run[place])].s;
      const int32_t* wrap_j = cells_.wrap.get() + 3 * static_cast<int64_t>(neighbour);
      i[to] = static_cast<Index>(atom);
      j[to] = static_cast<Index>(neighbour);
      for (int d = 0; d < 3; ++d) shifts[3 * to + d] = raw_shift(image[d], wrap_i[d], wrap_j[d]);
    }
  });
}

template <typename T>
PairFinder<T>& pair_finder() {
  thread_local PairFinder<T> finder;
  return finder;
}

template class PairFinder<float>;
template class PairFinder<double>;
template void PairFinder<float>::write_shifts(int32_t*, int32_t*, int32_t*);
template void PairFinder<float>::write_shifts(int64_t*, int64_t*, int32_t*);
template void PairFinder<double>::write_shifts(int32_t*, int32_t*, int32_t*);
template void PairFinder<double>::write_shifts(int64_t*, int64_t*, int32_t*);
template PairFinder<float>& pair_finder();
template PairFinder<double>& pair_finder();

}  // namespace openmm_gnn
