// Memory that is not initialised, kept between calls, and advised to use huge pages where large.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <new>
#include <string>

namespace openmm_gnn {

// Room past the end of every buffer, so that a full vector may be read or written there.
constexpr int64_t kPadding = 64;

// A fresh large block costs a page fault every 4 kB; with huge pages one every 2 MB. Advice, so failure is no error.
inline void advise_huge_pages(void* begin, int64_t bytes) {
  constexpr uintptr_t kHugePage = uintptr_t(1) << 21;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + kHugePage - 1) & ~(kHugePage - 1);
  const uintptr_t last = (reinterpret_cast<uintptr_t>(begin) + static_cast<uintptr_t>(bytes)) & ~(kHugePage - 1);
  if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

// Bytes that the machine, or the group of processes that this one is limited with, has to give.
inline int64_t free_memory() {
  int64_t free = INT64_MAX, value = 0;
  std::string name;
  for (std::ifstream lines("/proc/meminfo"); lines >> name >> value; lines.ignore(64, '\n')) {
    if (name == "MemAvailable:") free = 1024 * value;
  }
  std::ifstream limit("/sys/fs/cgroup/memory.max");  // a number, or the word max
  return limit >> value ? std::min(free, value) : free;
}

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  // Room for `count` values (and the padding); what was in it is lost if it grows.
  T* reserve(int64_t count) {
    if (count > capacity_) {
      std::free(data_);
      data_ = nullptr;
      capacity_ = 0;
      const int64_t wanted = count + count / 8;
      data_ = static_cast<T*>(allocate(wanted));
      capacity_ = wanted;
    }
    return data_;
  }

  // Room for `count` values, the first `used` of them kept.
  T* grow(int64_t count, int64_t used) {
    if (count > capacity_) {
      const int64_t wanted = count + count / 2;
      T* larger = static_cast<T*>(allocate(wanted));
      for (int64_t k = 0; k < used; ++k) larger[k] = data_[k];
      std::free(data_);
      data_ = larger;
      capacity_ = wanted;
    }
    return data_;
  }

  T* get() const { return data_; }
  T& operator[](int64_t index) const { return data_[index]; }
  int64_t capacity() const { return capacity_; }

 private:
  static void* allocate(int64_t count) {
    const size_t bytes = ((static_cast<size_t>(count + kPadding) * sizeof(T)) + 63) / 64 * 64;
    void* memory = std::aligned_alloc(64, bytes);
    if (memory == nullptr) throw std::bad_alloc();
    advise_huge_pages(memory, static_cast<int64_t>(bytes));
    return memory;
  }

  T* data_ = nullptr;
  int64_t capacity_ = 0;
};

}  // namespace openmm_gnn
