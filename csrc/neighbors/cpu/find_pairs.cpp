#include "neighbors/cpu/find_pairs.h"

#include <limits>

#include "neighbors/pair_rules.h"
#include "base/cpu/threads.h"

namespace openmm_gnn {

// Calls body(row, workspace, atom, sorted place) for every atom, cell by cell; the threads share the rows of cells.
template <typename T>
template <typename RowBody>
void PairFinder<T>::for_rows(bool runs, const RowBody& body) {
  const CellGrid& grid = cells_.grid;
  const RowKernels<T>& kernels = row_kernels<T>();
  const int64_t rows = static_cast<int64_t>(grid.count[1]) * grid.count[2];
  // Enough chunks to balance uneven rows, few enough to keep the threads apart.
  const int threads = question_.num_threads;
  const int64_t chunk = threads > 1 ? rows / (16 * threads) + 1 : rows;
  const T cutoff = static_cast<T>(question_.cutoff);
  while (workspaces_.size() < static_cast<size_t>(threads)) workspaces_.push_back(std::make_unique<Workspace>());
  for_chunks(threads, rows, chunk, [&](int thread, int64_t begin, int64_t end) {
    Workspace& workspace = *workspaces_[static_cast<size_t>(thread)];
    Candidates<T>& candidates = workspace.candidates;
    candidates.make_room(1);
    for (int64_t r = begin; r < end; ++r) {
      const int32_t cy = static_cast<int32_t>(r % grid.count[1]), cz = static_cast<int32_t>(r / grid.count[1]);
      for (int32_t cx = 0; cx < grid.count[0]; ++cx) {
        const int64_t cell = cell_index(grid, cx, cy, cz);
        const int32_t first = cells_.start[cell], last = cells_.start[cell + 1];
        if (first == last) continue;
        kernels.gather(candidates, cells_, cx, cy, cz, runs);
        workspace.hits.reserve(candidates.count);
        for (int32_t a = first; a < last; ++a) {
          T& own = candidates.x[candidates.self + (a - first)];
          const T kept = own;
          own = std::numeric_limits<T>::infinity();  // an atom is no neighbour of itself in the same image
          const int32_t atom = cells_.atom(a);
          body(Row<T>{&candidates, cells_.x[a], cells_.y[a], cells_.z[a], cutoff * cutoff, atom, !question_.full},
               workspace, static_cast<int64_t>(atom), a);
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
  for_rows(false, [&](const Row<T>& row, Workspace&, int64_t atom, int64_t) {
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

// Asks for the cache lines of `count` values that will be written soon.
template <typename T>
inline void expect_to_write(const T* to, int64_t count) {
  const char* first = reinterpret_cast<const char*>(to);
  const int64_t bytes = count * static_cast<int64_t>(sizeof(T));
  for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(first + byte, 1);
}

template <typename T>
void PairFinder<T>::write_geometry(int64_t* i, int64_t* j, T* vectors, T* distances) {
  const RowKernels<T>& kernels = row_kernels<T>();
  for_rows(false, [&](const Row<T>& row, Workspace& workspace, int64_t atom, int64_t place) {
    // Atoms that follow each other here are far apart in the output: fetch its lines while this atom is worked on.
    if (place + 2 < cells_.num_atoms) {
      const int64_t later = cells_.atom(place + 2);
      const int64_t at = offsets_[later], pairs = offsets_[later + 1] - at;
      expect_to_write(i + at, pairs);
      expect_to_write(j + at, pairs);
      expect_to_write(vectors + 3 * at, 3 * pairs);
      expect_to_write(distances + at, pairs);
    }
    const int64_t to = offsets_[atom];
    if (offsets_[atom + 1] == to) return;
    const int64_t found = kernels.collect(row, workspace.hits);
    kernels.write(workspace.hits, found, atom, GeometryRow<T>{i + to, j + to, vectors + 3 * to, distances + to});
  });
}

template <typename T>
template <typename Index>
void PairFinder<T>::write_shifts(Index* i, Index* j, int32_t* shifts) {
  const RowKernels<T>& kernels = row_kernels<T>();
  for_rows(true, [&](const Row<T>& row, Workspace& workspace, int64_t atom, int64_t) {
    const Candidates<T>& candidates = workspace.candidates;
    Hits<T>& hits = workspace.hits;
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
