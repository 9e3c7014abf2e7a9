// Checks each instruction of a program against the memory, and runs it.
#include "programs/cpu/array_program.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/arguments.h"
#include "base/boxed.h"
#include "base/cpu/instruction_set.h"

#define OPENMM_GNN_LOOPS "programs/cpu/array_loops.inl"
#include "base/cpu/for_each_instruction_set.inl"

namespace openmm_gnn {

const ArrayKernels& array_kernels() { return best_of(portable::kernels, avx2::kernels, avx512::kernels); }

namespace {

constexpr int64_t kMostNumbers = int64_t(1) << 30;  // of a memory, so that sums of strides do not overflow

[[noreturn]] void refuse(int64_t at, const std::string& words) {
  fail("the instruction at " + std::to_string(at) + " of an array program " + words);
}

// How many operands there are, the result included, and how many numbers are in the list.
struct Form {
  int operands;
  int64_t listed;
};

Form form_of(ArrayOperation operation, const int64_t* sizes) {
  switch (operation) {
    case ArrayOperation::kCopy:
    case ArrayOperation::kSquareRoot:
    case ArrayOperation::kExponential:
    case ArrayOperation::kSigmoid:
    case ArrayOperation::kSilu:
    case ArrayOperation::kGelu:
    case ArrayOperation::kSum:
    case ArrayOperation::kSoftmax: return {2, 0};
    case ArrayOperation::kAdd:
    case ArrayOperation::kThresholdBack:
    case ArrayOperation::kWhere: return {4, 0};
    case ArrayOperation::kNormalize: return {6, 1};
    case ArrayOperation::kNormalizeBack: return {6, 0};
    case ArrayOperation::kTakeRows:
    case ArrayOperation::kAddRows: return {2, sizes[0]};
    default: return {3, 0};
  }
}

// Whether products and norms, which read and write some operands as rows one behind the other, may do so.
bool has_whole_rows(const ArrayInstruction& in, int64_t memory_left_for_weight) {
  const auto steps_by_one = [&](int k, int last) { return in.sizes[last] == 1 || in.strides[k][last] == 1; };
  if (in.operation == ArrayOperation::kProduct) {
    const int64_t columns = (in.sizes[3] + 15) / 16 * 16;
    const bool as_it_is = in.strides[2][3] == 1 && in.strides[2][2] == columns;
    const int64_t read = in.strides[2][0] * (in.sizes[0] - 1) + in.sizes[2] * columns;
    return (in.sizes[1] == 1 || in.strides[0][1] == in.sizes[3]) && steps_by_one(0, 3) &&
           (!as_it_is || read <= memory_left_for_weight);
  }
  if (in.operation == ArrayOperation::kNormalize) {
    return steps_by_one(0, 1) && steps_by_one(3, 1) && steps_by_one(4, 1) && steps_by_one(5, 1);
  }
  if (in.operation == ArrayOperation::kNormalizeBack) {
    return steps_by_one(0, 1) && steps_by_one(1, 1) && steps_by_one(2, 1) && steps_by_one(5, 1);
  }
  return true;
}

ArrayInstruction checked(const int64_t* program, int64_t at, int64_t end, float* memory, int64_t memory_size) {
  if (end - at < 5) refuse(at, "is cut off");
  const int64_t* head = program + at;
  const int64_t length = head[1], dimensions = head[2], operands = head[3];
  if (head[0] < 0 || head[0] >= static_cast<int64_t>(ArrayOperation::kCount)) refuse(at, "is unknown");
  if (dimensions < 1 || dimensions > kMostDimensions || operands < 2 || operands > kMostOperands) {
    refuse(at, "has " + std::to_string(dimensions) + " dimensions and " + std::to_string(operands) + " operands");
  }
  const int64_t written = 4 + dimensions + operands * (1 + dimensions);
  if (length < written || length > end - at) refuse(at, "is cut off");
  ArrayInstruction found{};
  found.operation = static_cast<ArrayOperation>(head[0]);
  found.dimensions = static_cast<int>(dimensions);
  found.operands = static_cast<int>(operands);
  found.sizes = head + 4;
  found.rows = head + written;
  for (int64_t d = 0; d < dimensions; ++d) {
    if (found.sizes[d] < 1 || found.sizes[d] > kMostNumbers) refuse(at, "has a dimension that cannot be");
  }
  const Form form = form_of(found.operation, found.sizes);
  const bool product = found.operation == ArrayOperation::kProduct;
  const bool norm = found.operation == ArrayOperation::kNormalize || found.operation == ArrayOperation::kNormalizeBack;
  if ((operands != form.operands && !(product && operands == 4)) || length != written + form.listed ||
      (product && dimensions != 4) || (norm && dimensions != 2)) {
    refuse(at, "is no form of its operation");
  }
  int64_t most = 0;
  const bool takes = found.operation == ArrayOperation::kTakeRows, adds = found.operation == ArrayOperation::kAddRows;
  for (int64_t m = 0; (takes || adds) && m < form.listed; ++m) {
    if (found.rows[m] < 0 || found.rows[m] > memory_size) refuse(at, "has a row that cannot be");
    most = found.rows[m] > most ? found.rows[m] : most;
  }
  for (int64_t k = 0; k < operands; ++k) {
    const int64_t* operand = head + 4 + dimensions + k * (1 + dimensions);
    found.strides[k] = operand + 1;
    int64_t last = operand[0];
    if (last < 0 || last > memory_size) refuse(at, "has an offset that cannot be");
    for (int64_t d = 0; d < dimensions; ++d) {
      if (operand[1 + d] < 0 || operand[1 + d] > memory_size) refuse(at, "has a stride that cannot be");
      const bool listed = d == 0 && ((takes && k == 1) || (adds && k == 0));
      last += operand[1 + d] * (listed ? most : found.sizes[d] - 1);
    }
    if (last >= memory_size) {
      refuse(at, "reaches number " + std::to_string(last) + " of a memory of " + std::to_string(memory_size));
    }
    found.at[k] = memory + operand[0];
  }
  if (!has_whole_rows(found, memory_size - (product ? found.at[2] - memory : 0))) refuse(at, "has rows in pieces");
  return found;
}

}  // namespace

void run_array_program_cpu(const Tensor& program, const Tensor& memory, int64_t begin, int64_t end) {
  const CheckedArguments given(program, "program");
  const int64_t size = size_of(program, "program", 0, 1), memory_size = size_of(memory, "memory", 0, 1);
  const int64_t* numbers = given.get<int64_t>(program, "program", {size});
  float* values = given.get<float>(memory, "memory", {memory_size});
  check(memory_size <= kMostNumbers, "the memory of a program has " + std::to_string(memory_size) + " numbers, at most 2^30");
  check(0 <= begin && begin <= end && end <= size,
        "a part from " + std::to_string(begin) + " to " + std::to_string(end) + " of a program of " + std::to_string(size));
  const ArrayKernels& kernels = array_kernels();
  std::vector<float> scratch;
  for (int64_t at = begin; at < end; at += numbers[at + 1]) {
    kernels.run(checked(numbers, at, end, values, memory_size), scratch);
  }
}

OPENMM_GNN_CPU_OPERATORS(library) { implement<kRunArrayProgram, run_array_program_cpu>(library); }

}  // namespace openmm_gnn
