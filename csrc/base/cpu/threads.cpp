#include "base/cpu/threads.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>

namespace openmm_gnn {

namespace {

int available_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  // The variable by which users limit PyTorch's threads.
  if (const char* limit = std::getenv("OMP_NUM_THREADS")) {
    const int value = std::atoi(limit);
    if (value > 0) count = std::min(count, value);
  }
  return std::max(count, 1);
}

}  // namespace

int64_t processors(int64_t requested) { return requested > 0 ? requested : available_processors(); }

int useful_threads(int64_t requested, int64_t num_atoms) {
  if (num_atoms < kSerialAtoms) return 1;
  const int64_t threads = processors(requested);
  return static_cast<int>(std::min<int64_t>(threads, num_atoms / (kSerialAtoms / 2)));
}

}  // namespace openmm_gnn
