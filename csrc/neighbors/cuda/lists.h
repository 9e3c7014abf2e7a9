// What operators with neighbour lists on CUDA ask before they search: the system, its scratch memory, the list's state.
#pragma once

#include <cstdlib>
#include <string>

#include "base/cuda/device_arguments.h"
#include "neighbors/cuda/plan_search.h"
#include "neighbors/neighbor_arguments.h"

namespace openmm_gnn::cuda {

inline int64_t brute_force_atoms() {
  const char* asked = std::getenv("OPENMM_GNN_BRUTE_FORCE_ATOMS");
  if (asked == nullptr) return kBruteForceAtoms;
  char* end = nullptr;
  const int64_t atoms = std::strtoll(asked, &end, 10);
  check(end != asked && *end == 0 && atoms >= 0,
        std::string("OPENMM_GNN_BRUTE_FORCE_ATOMS is '") + asked + "': give a number of atoms, 0 or more");
  return atoms;
}

template <typename T>
System<T> system_of(const Tensor& positions, const Tensor& box, double cutoff, bool full) {
  const bool open = box.size(0) == 0;
  System<T> system;
  system.positions = data<const T>(positions);
  system.row_stride = positions.stride(0);
  system.column_stride = positions.stride(1);
  system.num_atoms = positions.size(0);
  system.box = open ? nullptr : data<const T>(box);
  system.box_row_stride = open ? 0 : box.stride(0);
  system.box_column_stride = open ? 0 : box.stride(1);
  system.cutoff = cutoff;
  system.full = full;
  system.brute_force = system.num_atoms <= brute_force_atoms();
  return system;
}

template <typename T>
Tensor make_workspace(const Tensor& positions, const System<T>& system, bool with_state, Workspace<T>& work) {
  const WorkShape shape{system.num_atoms, system.brute_force, with_state, strands_per_row(system.num_atoms)};
  return scratch_of(positions, [&](auto& carver) { lay_out(carver, shape, work); });
}

template <typename T>
SkinState<T> skin_state(const ListArguments& in) {
  const ListState<T> given = checked_state<T>(in);
  return {given.reference_positions, given.reference_box, given.stored_pairs, given.stored_shifts,
          given.status,              given.capacity,      in.skin};
}

}  // namespace openmm_gnn::cuda
