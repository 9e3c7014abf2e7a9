// A program of operations on small arrays, which one call runs: kernels/array_program.py writes it.
//
// All arrays lie in one memory of float32, the constants too. An instruction is a run of integers: its operation, its
// length, the number of dimensions, the number of operands; the sizes; of each operand, the result first, its offset in
// the memory and its strides, zero where it is repeated. Some operations have a list of rows behind that. The last
// dimension runs fastest.
#pragma once

#include <cstdint>
#include <vector>

#include "base/arguments.h"

namespace openmm_gnn {

inline constexpr char kRunArrayProgram[] =
    "run_array_program(Tensor program, Tensor(a!) memory, int begin, int end) -> ()";

constexpr int kMostDimensions = 6, kMostOperands = 6;

// In the order of `Operation` in kernels/array_recorder.py.
enum class ArrayOperation : int64_t {
  // One result for each place.
  kCopy,
  kAdd,  // a + b c
  kMultiply,
  kDivide,
  kLarger,
  kSmaller,
  kSquareRoot,
  kPower,
  kExponential,
  kSigmoid,
  kSigmoidBack,  // of the gradient and the result
  kSilu,
  kSiluBack,  // of the gradient and the argument
  kGelu,
  kGeluBack,
  kThresholdBack,  // the gradient a where b > c
  kWhere,          // a != 0 ? b : c
  kEqual,
  kLess,
  // Of whole rows.
  kSum,            // added to what the result holds; a result repeated along a dimension is summed over it
  kProduct,        // dimensions (batch, m, k, n): (m, n) from (m, k) and (k, n), and with four operands plus the last
  kNormalize,      // result, mean and reciprocal deviation of rows; x, gain, bias; in the list epsilon in 1e-12
  kNormalizeBack,  // gradient by x; gradient, x, mean, reciprocal deviation, gain
  kSoftmax,
  kSoftmaxBack,  // of the gradient and the result
  kTakeRows,     // row m is that of the argument whose number is m-th in the list
  kAddRows,      // row m is added to that of the result
  kCount
};

struct ArrayInstruction {
  ArrayOperation operation;
  int dimensions, operands;
  const int64_t* sizes;
  float* at[kMostOperands];
  const int64_t* strides[kMostOperands];
  const int64_t* rows;  // the list
};

struct ArrayKernels {
  void (*run)(const ArrayInstruction&, std::vector<float>& scratch);
};

const ArrayKernels& array_kernels();

void run_array_program_cpu(const Tensor& program, const Tensor& memory, int64_t begin, int64_t end);

}  // namespace openmm_gnn
