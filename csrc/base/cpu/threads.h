// Work shared among a few plain threads, started for one loop and joined after it.
//
// No OpenMP: its waiting threads spin, and a second busy process on the machine then slows a step a hundredfold.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace openmm_gnn {

// Below this many atoms starting a thread costs more than it saves.
constexpr int64_t kSerialAtoms = 20000;

// Threads worth using: `requested`, or the processors this process may run on if `requested` is 0.
int useful_threads(int64_t requested, int64_t num_atoms);

// `requested`, or the processors this process may run on if `requested` is 0.
int64_t processors(int64_t requested);

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
