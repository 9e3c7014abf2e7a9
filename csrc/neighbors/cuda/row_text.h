// A row of three numbers on the device, for error messages.
#pragma once

#include <cmath>
#include <sstream>
#include <string>

#include "neighbors/cuda/neighbor_lists.h"

namespace openmm_gnn::cuda {

// Three numbers of a strided array as text; waits for the device.
template <typename T>
std::string row_text(StreamHandle stream, const T* row, int64_t stride, bool* finite = nullptr) {
  std::ostringstream text;
  if (finite != nullptr) *finite = true;
  for (int d = 0; d < 3; ++d) {
    T value;
    read_back(stream, &value, row + d * stride, sizeof(value));
    if (finite != nullptr) *finite = *finite && std::isfinite(value);
    text << (d ? ", " : "(") << value;
  }
  return text.str() + ")";
}

}  // namespace openmm_gnn::cuda
