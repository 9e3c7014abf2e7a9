// Work shared among a few plain threads, started for one loop and joined after it.
//
// No OpenMP: its waiting threads spin, and a second busy process on the machine then slows a step a hundredfold.
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace openmm_gnn {

// Below this many atoms starting a thread costs more than it saves.
constexpr int64_t kSerialAtoms = 20000;

// `requested`, or the processors this process may run on if `requested` is 0.
inline int64_t processors(int64_t requested) {
  if (requested > 0) return requested;
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

// Those of them that have `per_thread` items each, at least one.
inline int threads_for(int64_t requested, int64_t count, int64_t per_thread) {
  return static_cast<int>(std::max<int64_t>(1, std::min(processors(requested), count / per_thread)));
}

// Those that are worth using for a search.
inline int useful_threads(int64_t requested, int64_t num_atoms) {
  return num_atoms < kSerialAtoms ? 1 : threads_for(requested, num_atoms, kSerialAtoms / 2);
}

// Calls body(thread, begin, end) once per thread on equal contiguous parts of [0, count).
template <typename Body>
void for_parts(int num_threads, int64_t count, const Body& body) {
  if (num_threads <= 1) {
    body(0, int64_t(0), count);
    return;
  }
  std::exception_ptr error;
  std::mutex lock;
  const auto part = [&](int thread) {
    try {
      body(thread, count * thread / num_threads, count * (thread + 1) / num_threads);
    } catch (...) {
      const std::lock_guard<std::mutex> guard(lock);
      error = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  int started = 1;
  try {
    for (; started < num_threads; ++started) threads.emplace_back(part, started);
  } catch (const std::system_error&) {
    // The machine gives no more threads: this one does the parts that are left.
  }
  part(0);
  for (int thread = started; thread < num_threads; ++thread) part(thread);
  for (std::thread& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
}

// Calls body(thread, begin, end) on chunks of [0, count), each taken by the next free thread: for uneven work.
template <typename Body>
void for_chunks(int num_threads, int64_t count, int64_t chunk, const Body& body) {
  std::atomic<int64_t> next{0};
  for_parts(num_threads, num_threads, [&](int thread, int64_t, int64_t) {
    while (true) {
      const int64_t begin = next.fetch_add(chunk);
      if (begin >= count) return;
      body(thread, begin, begin + chunk < count ? begin + chunk : count);
    }
  });
}

}  // namespace openmm_gnn
