#include <cstring>
#include <vector>

#include "base/cpu/operators.h"
#include "base/cpu/sums.h"
#include "vector_gamd/cpu/vector_network.h"

namespace openmm_gnn {

namespace {

constexpr int64_t kLanes = 16;
void check_float(const Tensor& tensor, const char* name, std::initializer_list<int64_t> sizes) {
  check(is_float32(tensor) && tensor.is_contiguous(), std::string(name) + " must be float32 and contiguous");
  bool same = tensor.dim() == static_cast<int64_t>(sizes.size());
  int64_t d = 0;
  for (const int64_t size : sizes) {
    if (same && size >= 0 && tensor.size(d) != size) same = false;
    ++d;
  }
  std::string expected;
  for (const int64_t size : sizes) expected += (expected.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
  if (!same) fail(std::string(name) + " has shape " + shape_text(tensor) + ": expected (" + expected + ")");
}

PairList pair_list(const PairInputs& pairs, int64_t num_atoms, int64_t num_types) {
  const int64_t count = pairs.pairs.dim() == 2 ? pairs.pairs.size(1) : -1;
  check(count >= 0 && pairs.pairs.size(0) == 2 && dtype_of(pairs.pairs) == aoti_torch_dtype_int64() &&
            pairs.pairs.is_contiguous(),
        "pairs has shape " + shape_text(pairs.pairs) + ": give (2, number of pairs), int64 and contiguous");
  check(dtype_of(pairs.types) == aoti_torch_dtype_int64() && pairs.types.is_contiguous() && pairs.types.dim() == 1 &&
            pairs.types.size(0) == count,
        "types has shape " + shape_text(pairs.types) + ": give (number of pairs,), int64 and contiguous");
  check_float(pairs.vectors, "vectors", {count, 3});
  check_float(pairs.distances, "distances", {count});
  const int64_t *i = data<int64_t>(pairs.pairs), *type = data<int64_t>(pairs.types);
  for (int64_t k = 0; k < count; ++k) {
    if (i[k] < 0) continue;
    if (i[k] >= num_atoms || i[count + k] < 0 || i[count + k] >= num_atoms || type[k] < 0 || type[k] >= num_types) {
      fail("pair " + std::to_string(k) + " is (" + std::to_string(i[k]) + ", " + std::to_string(i[count + k]) +
           ") of type " + std::to_string(type[k]) + ": there are " + std::to_string(num_atoms) + " atoms and " +
           std::to_string(num_types) + " types");
    }
  }
  return {count, i, i + count, type, data<float>(pairs.vectors), data<float>(pairs.distances)};
}

RadialTable radial_table(const Tensor& table, double start, double cutoff) {
  check(table.size(1) >= 4 && start >= 0 && start < cutoff, "a radial table needs 4 knots and start below cutoff");
  return {data<float>(table), table.size(1), table.size(2), static_cast<float>(start), static_cast<float>(cutoff)};
}

void check_width(int64_t width) {
  check(width > 0 && width % kLanes == 0,
        "the width is " + std::to_string(width) + ": give a multiple of " + std::to_string(kLanes));
}

const float* or_null(const Tensor& tensor) { return tensor.numel() > 0 ? data<float>(tensor) : nullptr; }

Messages messages_of(const MessageInputs& in, const PairInputs& pairs) {
  check(in.value.dim() == 2, "value has shape " + shape_text(in.value) + ": give (number of atoms, width)");
  const int64_t atoms = in.value.size(0), width = in.value.size(1);
  check_width(width);
  check_float(in.value, "value", {atoms, width});
  check_float(in.source, "source", {atoms, 3 * width});
  check_float(in.target, "target", {atoms, 3 * width});
  const int64_t vector_atoms = in.probe.size(0) == 0 ? 0 : atoms;
  check_float(in.probe, "probe", {vector_atoms, 3, width});
  check_float(in.carried, "carried", {vector_atoms, 3, width});
  check_float(in.table, "table", {-1, -1, 3 * width});
  check_float(in.mixing, "mixing", {3, 3 * width});
  return {atoms, width, data<float>(in.source), data<float>(in.target), data<float>(in.value), or_null(in.probe),
          or_null(in.carried), radial_table(in.table, pairs.start, pairs.cutoff), data<float>(in.mixing)};
}

Strengths strengths_of(const StrengthInputs& in, const PairInputs& pairs) {
  check(in.total.dim() == 2, "total has shape " + shape_text(in.total) + ": give (number of atoms, width)");
  const int64_t atoms = in.total.size(0), width = in.total.size(1);
  check_width(width);
  check_float(in.total, "total", {atoms, width});
  check_float(in.left, "left", {atoms, width});
  check_float(in.probe, "probe", {atoms, 3, width});
  check_float(in.table, "table", {-1, -1, width});
  check_float(in.mixing, "mixing", {3, width});
  check_float(in.readout, "readout", {width});
  return {atoms, width, data<float>(in.total), data<float>(in.left), data<float>(in.probe),
          radial_table(in.table, pairs.start, pairs.cutoff), data<float>(in.mixing), data<float>(in.readout)};
}

}  // namespace

std::vector<Tensor> vector_messages_cpu(const PairInputs& pairs, const MessageInputs& in) {
  const Messages question = messages_of(in, pairs);
  const PairList list = pair_list(pairs, question.num_atoms, in.table.size(0));
  Sums sums;
  std::vector<Tensor> result{sums.add(in.value, {question.num_atoms, question.width}),
                             sums.add(in.value, {question.num_atoms, 3, question.width})};
  sums.run(pairs.num_threads, list.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    vector_network_kernels().messages(list, begin, end, question, out[0], out[1]);
  });
  return result;
}

std::vector<Tensor> vector_messages_backward_cpu(const PairInputs& pairs, const MessageInputs& in,
                                                 const Tensor& scalars, const Tensor& vectors, bool geometry,
                                                 bool weights) {
  const Messages question = messages_of(in, pairs);
  const int64_t atoms = question.num_atoms, width = question.width;
  const PairList list = pair_list(pairs, atoms, in.table.size(0));
  check_float(scalars, "the gradient of scalars", {atoms, width});
  check_float(vectors, "the gradient of vectors", {atoms, 3, width});
  Sums sums;
  std::vector<Tensor> result{sums.add(in.value, {atoms, 3 * width}),
                             sums.add(in.value, {atoms, 3 * width}),
                             sums.add(in.value, {atoms, width}),
                             sums.add(in.value, {in.probe.size(0), 3, width}),
                             sums.add(in.value, {in.carried.size(0), 3, width}),
                             sums.add(in.value, {weights ? in.table.size(0) : 0, in.table.size(1), 3 * width}),
                             sums.add(in.value, {weights ? 3 : 0, 3 * width}),
                             sums.add(in.value, {geometry ? list.count : 0, 3})};
  const float *from_scalars = data<float>(scalars), *from_vectors = data<float>(vectors);
  sums.run(pairs.num_threads, list.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    const MessageGradients gradients{from_scalars, from_vectors, out[0], out[1], out[2], out[3],
                                     out[4], weights ? out[5] : nullptr, weights ? out[6] : nullptr,
                                     geometry ? out[7] : nullptr};
    vector_network_kernels().message_gradients(list, begin, end, question, gradients);
  });
  return result;
}

Tensor pair_strengths_cpu(const PairInputs& pairs, const StrengthInputs& in) {
  const Strengths question = strengths_of(in, pairs);
  const PairList list = pair_list(pairs, question.num_atoms, in.table.size(0));
  const Tensor result = empty(in.total, {list.count}, aoti_torch_dtype_float32());
  float* strengths = data<float>(result);
  if (list.count > 0) std::memset(strengths, 0, sizeof(float) * static_cast<size_t>(list.count));
  Sums none;
  none.run(pairs.num_threads, list.count, [&](int64_t begin, int64_t end, const std::vector<float*>&) {
    vector_network_kernels().strengths(list, begin, end, question, strengths);
  });
  return result;
}

std::vector<Tensor> pair_strengths_backward_cpu(const PairInputs& pairs, const StrengthInputs& in,
                                                const Tensor& strengths, bool geometry, bool weights) {
  const Strengths question = strengths_of(in, pairs);
  const int64_t atoms = question.num_atoms, width = question.width;
  const PairList list = pair_list(pairs, atoms, in.table.size(0));
  check_float(strengths, "the gradient of strengths", {list.count});
  Sums sums;
  std::vector<Tensor> result{sums.add(in.total, {atoms, width}),
                             sums.add(in.total, {atoms, width}),
                             sums.add(in.total, {atoms, 3, width}),
                             sums.add(in.total, {weights ? in.table.size(0) : 0, in.table.size(1), width}),
                             sums.add(in.total, {weights ? 3 : 0, width}),
                             sums.add(in.total, {weights ? width : 0}),
                             sums.add(in.total, {geometry ? list.count : 0, 3})};
  const float* from_strengths = data<float>(strengths);
  sums.run(pairs.num_threads, list.count, [&](int64_t begin, int64_t end, const std::vector<float*>& out) {
    const StrengthGradients gradients{from_strengths, out[0], out[1], out[2], weights ? out[3] : nullptr,
                                      weights ? out[4] : nullptr, weights ? out[5] : nullptr,
                                      geometry ? out[6] : nullptr};
    vector_network_kernels().strength_gradients(list, begin, end, question, gradients);
  });
  return result;
}

}  // namespace openmm_gnn
