// Loops over pairs that several threads make side by side.
#pragma once

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "base/arguments.h"
#include "base/cpu/threads.h"

namespace openmm_gnn {

constexpr int64_t kPairsPerThread = 2000;  // below, starting a thread costs more than it saves

// Calls body(begin, end) on the parts of [0, count), for loops that write what belongs to one pair or atom.
template <typename Body>
void for_pairs(int64_t num_threads, int64_t count, const Body& body) {
  for_parts(threads_for(num_threads, count, kPairsPerThread), count,
            [&](int, int64_t begin, int64_t end) { body(begin, end); });
}

// Arrays that several threads add to: the first thread into the arrays, each other one into zeros of its own.
//
// To clear and to add up a copy costs about as much as a pair for each of its rows, so a thread has at least as many pairs
// as there are rows; and all copies together have at most kCopiedFloats, which is 256 MB. Further threads stay idle: time and
// memory do not grow with their number.
class Sums {
 public:
  static constexpr int64_t kCopiedFloats = int64_t(1) << 26;
  static constexpr int64_t kFloatsPerThread = int64_t(1) << 16;  // to add up

  Tensor add(const Tensor& like, std::initializer_list<int64_t> sizes) {
    Tensor tensor = floats_like(like, sizes);
    add(data<float>(tensor), *sizes.begin(), tensor.numel());
    return tensor;
  }

  // An array of the caller's, of `count` numbers in `rows` rows, cleared here.
  void add(float* array, int64_t rows, int64_t count) {
    if (count > 0) std::memset(array, 0, sizeof(float) * static_cast<size_t>(count));
    offsets_.push_back(total_);
    total_ += count;
    rows_ = std::max(rows_, rows);
    arrays_.push_back({array, count});
  }

  // Calls body(begin, end, arrays) on the parts of [0, count); arrays are in the order in which they were added.
  template <typename Body>
  void run(int64_t num_threads, int64_t count, const Body& body, int64_t per_thread = kPairsPerThread) {
    const int64_t most = std::min(count / std::max<int64_t>(rows_, 1), 1 + kCopiedFloats / std::max<int64_t>(total_, 1));
    const int threads = threads_for(std::min(processors(num_threads), std::max<int64_t>(most, 1)), count, per_thread);
    std::vector<std::vector<float>> copies(static_cast<size_t>(threads - 1));
    try {
      for (std::vector<float>& copy : copies) copy.reserve(static_cast<size_t>(total_));
    } catch (const std::bad_alloc&) {
      fail("the sums over " + std::to_string(count) + " pairs need " + gigabytes(4 * total_ * (threads - 1)) +
           " for " + std::to_string(threads) + " threads: give fewer, by torch.set_num_threads");
    }
    for_parts(threads, count, [&](int thread, int64_t begin, int64_t end) {
      std::vector<float*> arrays(arrays_.size());
      if (thread > 0) copies[thread - 1].assign(static_cast<size_t>(total_), 0.f);
      for (size_t k = 0; k < arrays.size(); ++k) {
        arrays[k] = thread > 0 ? copies[thread - 1].data() + offsets_[k] : arrays_[k].begin;
      }
      body(begin, end, arrays);
    });
    if (threads == 1) return;
    for_parts(threads_for(threads, total_, kFloatsPerThread), total_, [&](int, int64_t begin, int64_t end) {
      for (size_t k = 0; k < arrays_.size(); ++k) {
        const int64_t first = std::max(begin, offsets_[k]), last = std::min(end, offsets_[k] + arrays_[k].count);
        if (first >= last) continue;
        float* sum = arrays_[k].begin + (first - offsets_[k]);
        for (const std::vector<float>& copy : copies) {
          for (int64_t n = 0; n < last - first; ++n) sum[n] += copy[static_cast<size_t>(first + n)];
        }
      }
    });
  }

 private:
  struct Array {
    float* begin;
    int64_t count;
  };

  std::vector<Array> arrays_;
  std::vector<int64_t> offsets_;
  int64_t total_ = 0, rows_ = 0;
};

}  // namespace openmm_gnn
