// Calls the two operators' kernels through the emulator, as csrc/neighbors/cuda/ops_cuda.cpp calls them on a GPU.
#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "neighbors/cuda/pipeline.h"
#include "grid_emulator.h"
#include "systems.h"

namespace testing {

using openmm_gnn::cuda::PairTensors;
using openmm_gnn::cuda::SkinState;
using openmm_gnn::cuda::System;
using openmm_gnn::cuda::Workspace;
using systems::Case;

#define REQUIRE(condition, ...)                                          \
  do {                                                                   \
    if (!(condition)) {                                                  \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);        \
      std::printf(__VA_ARGS__);                                          \
      std::printf("\n");                                                 \
      std::exit(1);                                                      \
    }                                                                    \
  } while (false)

enum class Path { tiles, cells };

struct Found {
  int64_t i, j;
  std::array<int64_t, 3> shift;
  std::array<double, 3> r;
  double distance;
  auto key() const { return std::make_tuple(i, j, shift[0], shift[1], shift[2]); }
};

// The arrays of one system in the type under test, in device memory.
template <typename T>
struct Arrays {
  emulator::Memory memory;
  T* positions;
  T* box = nullptr;
  System<T> system;

  Arrays(const Case& given, Path path, double cutoff, int64_t row_stride = 3) {
    const int64_t atoms = static_cast<int64_t>(given.positions.size());
    positions = memory.take<T>(atoms == 0 ? 0 : (atoms - 1) * row_stride + 3);
    for (int64_t atom = 0; atom < atoms; ++atom) {
      for (int d = 0; d < 3; ++d) positions[atom * row_stride + d] = static_cast<T>(given.positions[atom][d]);
    }
    if (given.periodic) {
      box = memory.take<T>(9);
      for (int k = 0; k < 9; ++k) box[k] = static_cast<T>(given.box[k / 3][k % 3]);
    }
    system = {positions, row_stride, 1, atoms, box, 3, 1, cutoff, given.full, path == Path::tiles};
  }
};

struct SearchResult {
  int64_t errors = 0, bad_atom = 0;
  std::vector<Found> pairs;  // in the order of the operator
};

template <typename T>
SearchResult find(const Case& given, Path path, uint64_t seed, int strands, int64_t row_stride = 3) {
  Arrays<T> arrays(given, path, given.cutoff, row_stride);
  emulator::Memory& memory = arrays.memory;
  emulator::Launcher launcher(seed);
  Workspace<T> work;
  openmm_gnn::cuda::lay_out(memory, {arrays.system.num_atoms, path == Path::tiles, false, strands}, work);
  openmm_gnn::cuda::find_pairs(launcher, arrays.system, work);
  SearchResult result;
  result.errors = work.report->errors;
  result.bad_atom = work.report->bad_atom;
  const int64_t count = work.report->found;
  const PairTensors<T> output{memory.take<int64_t>(2 * count), memory.take<int32_t>(3 * count),
                              memory.take<T>(3 * count), memory.take<T>(count), count};
  openmm_gnn::cuda::write_pairs(launcher, arrays.system, work, output);
  for (int64_t p = 0; p < count; ++p) {
    Found found{output.pairs[p], output.pairs[count + p], {}, {}, output.distances[p]};
    for (int d = 0; d < 3; ++d) {
      found.shift[d] = output.shifts[3 * p + d];
      found.r[d] = output.vectors[3 * p + d];
    }
    result.pairs.push_back(found);
  }
  return result;
}

// A list with skin that lives through many steps.
template <typename T>
class SkinList {
 public:
  SkinList(int64_t atoms, int64_t capacity, double skin) : atoms_(atoms), capacity_(capacity) {
    state_ = {memory_.take<T>(3 * atoms), memory_.take<T>(9),   memory_.take<int32_t>(2 * capacity),
              memory_.take<int32_t>(3 * capacity), memory_.take<int64_t>(openmm_gnn::kStatusSlots), capacity, skin};
    for (int slot = 0; slot < openmm_gnn::kStatusSlots; ++slot) state_.status[slot] = 0;
    state_.status[openmm_gnn::kStatusBadAtom] = -1;
  }

  int64_t status(openmm_gnn::StatusSlot slot) const { return state_.status[slot]; }

  // For what another list, or a caller, may have left in it.
  SkinState<T>& state() { return state_; }

  // Every slot, padding included.
  std::vector<Found> padded(const Case& given, Path path, uint64_t seed) {
    Call call(*this, given, path, seed);
    const PairTensors<T> output = call.output(capacity_);
    openmm_gnn::cuda::emit_padded(call.launcher, call.arrays.system, state_, call.work, output);
    return read(output);
  }

  // Those within the cutoff.
  std::vector<Found> trimmed(const Case& given, Path path, uint64_t seed) {
    std::vector<Found> pairs = padded(given, path, seed);
    const auto far = [&](const Found& pair) { return pair.i < 0 || !(pair.distance < given.cutoff); };
    pairs.erase(std::remove_if(pairs.begin(), pairs.end(), far), pairs.end());
    return pairs;
  }

 private:
  struct Call {
    Arrays<T> arrays;
    emulator::Launcher launcher;
    Workspace<T> work;
    Call(SkinList& list, const Case& given, Path path, uint64_t seed)
        : arrays(given, path, given.cutoff + list.state_.skin), launcher(seed) {
      openmm_gnn::cuda::lay_out(arrays.memory, {list.atoms_, path == Path::tiles, true, 4}, work);
      openmm_gnn::cuda::update_list(launcher, arrays.system, list.state_, work);
    }
    PairTensors<T> output(int64_t count) {
      emulator::Memory& memory = arrays.memory;
      return {memory.take<int64_t>(2 * count), memory.take<int32_t>(3 * count), memory.take<T>(3 * count),
              memory.take<T>(count), count};
    }
  };

  static std::vector<Found> read(const PairTensors<T>& output) {
    std::vector<Found> pairs;
    for (int64_t p = 0; p < output.capacity; ++p) {
      Found found{output.pairs[p], output.pairs[output.capacity + p], {}, {}, output.distances[p]};
      for (int d = 0; d < 3; ++d) {
        found.shift[d] = output.shifts[3 * p + d];
        found.r[d] = output.vectors[3 * p + d];
      }
      pairs.push_back(found);
    }
    return pairs;
  }

  int64_t atoms_, capacity_;
  emulator::Memory memory_;
  SkinState<T> state_;
};

}  // namespace testing
