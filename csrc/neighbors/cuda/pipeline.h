// The order in which the kernels run. `Launcher` is a CUDA stream (launch.h) or the grid emulator of the tests: both
// run exactly these lists.
//
//   plan -> [check displacements] -> wrap atoms -> cell list:   scan cells -> gather -> rank -> count -> scan strands
//                                               -> brute force:                                count -> scan strands
//        -> write pairs -> [emit list]
//
// 6 to 12 launches, no host in between. In update_neighbor_list every kernel from "wrap" to "write" returns at once if
// the list is still good, which leaves the cost of an empty launch, small inside a CUDA graph.
#pragma once

#include <limits>

#include "neighbors/cuda/emit_list.h"
#include "neighbors/cuda/search_cells.h"
#include "neighbors/cuda/search_tiles.h"
#include "neighbors/cuda/sort_cells.h"
#include "neighbors/cuda/wrap_atoms.h"

namespace openmm_gnn::cuda {

template <typename T, class Launcher, class Action>
void search(Launcher& launcher, const System<T>& system, const Workspace<T>& work, const Action& action) {
  const T cutoff = static_cast<T>(system.cutoff);
  if (system.brute_force) {
    launcher.launch(blocks_for(work.num_strands, kTileAtoms),
                    SearchTiles<T, Action>{work, system.num_atoms, cutoff, system.full, action});
  } else {
    launch_items(launcher, work.num_strands, SearchCells<T, Action>{work, cutoff, system.full, action});
  }
}

// Everything up to the number of pairs.
template <typename T, class Launcher, class Finish>
void count_pairs(Launcher& launcher, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work,
                 const Finish& finish) {
  const int64_t atoms = system.num_atoms;
  if (!system.brute_force) launcher.clear(work.cell_count, (work.max_cells + 1) * sizeof(int32_t));
  launcher.launch(1, PlanSearch<T>{system, state, work, std::numeric_limits<T>::epsilon()});
  if (state.status != nullptr) launch_items(launcher, atoms, CheckDisplacements<T>{system, state, work});
  launch_items(launcher, atoms, WrapAtoms<T>{system, state, work});
  if (!system.brute_force) {
    prefix_sum(launcher, work.plan, work.cell_count, work.cell_scan, FinishNothing{});
    launch_items(launcher, atoms, GatherMembers<T>{work});
    launch_items(launcher, atoms, RankMembers<T>{work});
  }
  search(launcher, system, work, CountPairs<T>{work.strand_count});
  prefix_sum(launcher, work.plan, work.strand_count, work.strand_scan, finish);
}

// neighbor_pairs, first half: afterwards work.report holds the number of pairs and the errors.
template <typename T, class Launcher>
void find_pairs(Launcher& launcher, const System<T>& system, const Workspace<T>& work) {
  count_pairs(launcher, system, SkinState<T>{}, work, FinishReport<T>{work});
}

// neighbor_pairs, second half: `output.capacity` is the number of pairs.
template <typename T, class Launcher>
void write_pairs(Launcher& launcher, const System<T>& system, const Workspace<T>& work, const PairTensors<T>& output) {
  search(launcher, system, work, WritePairs<T, PairTensors<T>>{work.strand_scan, work.wraps, output});
}

// update_neighbor_list up to the stored list.
template <typename T, class Launcher>
void update_list(Launcher& launcher, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work) {
  count_pairs(launcher, system, state, work, FinishState<T>{system, state, work});
  const StoredList<T> stored{state.stored_pairs, state.stored_shifts, state.capacity};
  search(launcher, system, work, WritePairs<T, StoredList<T>>{work.strand_scan, work.wraps, stored});
}

// update_neighbor_list. system.cutoff is that of the search, skin included.
template <typename T, class Launcher>
void emit_padded(Launcher& launcher, const System<T>& system, const SkinState<T>& state, const Workspace<T>& work,
                 const PairTensors<T>& output) {
  const T far = static_cast<T>(2 * system.cutoff);
  launch_items(launcher, state.capacity, EmitPadded<T>{state, work, output, system.num_atoms, far});
}

}  // namespace openmm_gnn::cuda
