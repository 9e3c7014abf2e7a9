// Sums over pairs that several threads make side by side.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/arguments.h"
#include "base/cpu/threads.h"

namespace openmm_gnn {

constexpr int64_t kPairsPerThread = 2000;  // below, starting a thread costs more than it saves

// Arrays that several threads add to: the first thread into the tensors, each other one into zeros of its own.
class Sums {
 public:
  Tensor add(const Tensor& like, std::initializer_list<int64_t> sizes) {
    Tensor tensor = empty(like, sizes, aoti_torch_dtype_float32());
    if (tensor.numel() > 0) std::memset(data<float>(tensor), 0, sizeof(float) * static_cast<size_t>(tensor.numel()));
    offsets_.push_back(total_);
    total_ += tensor.numel();
    tensors_.push_back(tensor);
    return tensor;
  }

  // Calls body(begin, end, arrays) on the parts of [0, count); arrays are in the order in which they were added.
  template <typename Body>
  void run(int64_t num_threads, int64_t count, const Body& body) {
    const int threads = static_cast<int>(
        std::max<int64_t>(1, std::min<int64_t>(processors(num_threads), count / kPairsPerThread)));
    std::vector<std::vector<float>> copies(static_cast<size_t>(threads - 1));
    for_parts(threads, count, [&](int thread, int64_t begin, int64_t end) {
      std::vector<float*> arrays(tensors_.size());
      if (thread > 0) copies[thread - 1].assign(static_cast<size_t>(total_), 0.f);
      for (size_t k = 0; k < arrays.size(); ++k) {
        arrays[k] = thread > 0 ? copies[thread - 1].data() + offsets_[k] : data<float>(tensors_[k]);
      }
      body(begin, end, arrays);
    });
    for (const std::vector<float>& copy : copies) {
      for (size_t k = 0; k < tensors_.size(); ++k) {
        float* sum = data<float>(tensors_[k]);
        const float* part = copy.data() + offsets_[k];
        for (int64_t n = 0, size = tensors_[k].numel(); n < size; ++n) sum[n] += part[n];
      }
    }
  }

 private:
  std::vector<Tensor> tensors_;
  std::vector<int64_t> offsets_;
  int64_t total_ = 0;
};

}  // namespace openmm_gnn
