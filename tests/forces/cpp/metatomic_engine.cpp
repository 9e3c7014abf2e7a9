// What PLUMED's action METATOMIC does with a model, in the C++ interface that it uses, without Python.
//
//   metatomic_engine MODEL EXTENSIONS OUTPUT < numbers
//
// The numbers are the number of atoms, 1 if there is a box or 0, then the nine of the box vectors, atomic numbers, and
// positions, in nm. It prints how many values OUTPUT has, which it asks a system without atoms; then the first value,
// its gradient by the positions, and the nine derivatives by a strain of positions and box.
#include <metatomic/torch.hpp>
#include <metatensor/torch.hpp>
#include <torch/script.h>

#include <iomanip>
#include <iostream>

using namespace metatomic_torch;

template <class Number>
torch::Tensor read(std::vector<int64_t> shape, torch::ScalarType type) {
  torch::Tensor values = torch::zeros(shape, type);
  for (int64_t k = 0; k < values.numel(); ++k) std::cin >> values.data_ptr<Number>()[k];
  return values;
}

void show(const torch::Tensor& values) {
  torch::Tensor flat = values.contiguous();
  for (int64_t k = 0; k < flat.numel(); ++k) std::cout << flat.data_ptr<double>()[k] << " ";
}

int main(int, char** arguments) {
  auto model = load_atomistic_model(arguments[1], std::string(arguments[2]));
  const std::string name = arguments[3];
  auto output = torch::make_intrusive<ModelOutputHolder>();
  output->set_sample_kind("system");
  auto options = torch::make_intrusive<ModelEvaluationOptionsHolder>();
  options->set_length_unit("nm");
  options->outputs.insert(name, output);
  auto block = [&](torch::Tensor types, torch::Tensor positions, torch::Tensor cell, bool periodic) {
    auto pbc = torch::full({3}, periodic, torch::kBool);
    auto system = torch::make_intrusive<SystemHolder>(types, positions, cell, pbc);
    auto found = model.forward({std::vector<System>{system}, options, true}).toGenericDict().at(name);
    return metatensor_torch::TensorMapHolder::block_by_id(
        found.toCustomClass<metatensor_torch::TensorMapHolder>(), 0);
  };
  int64_t atoms = 0, periodic = 0;
  std::cin >> atoms >> periodic;
  torch::Tensor cell = torch::zeros({3, 3}, torch::kFloat64);
  if (periodic != 0) cell = read<double>({3, 3}, torch::kFloat64);
  torch::Tensor types = read<int32_t>({atoms}, torch::kInt32);
  torch::Tensor positions = read<double>({atoms, 3}, torch::kFloat64).requires_grad_(true);
  std::cout << std::setprecision(12);
  if (name == "features") {
    torch::Tensor nowhere = torch::zeros({0, 3}, torch::kFloat64);
    torch::Tensor no_cell = torch::zeros({3, 3}, torch::kFloat64);
    std::cout << block(types.slice(0, 0, 0), nowhere, no_cell, false)->properties()->count() << " ";
  } else {
    std::cout << 1 << " ";
  }
  torch::Tensor strain = torch::eye(3, torch::TensorOptions(torch::kFloat64).requires_grad(true));
  torch::Tensor strained = positions.matmul(strain);
  strained.retain_grad();
  torch::Tensor value = block(types, strained, cell.matmul(strain), periodic != 0)->values()[0][0];
  value.backward();
  show(value.detach());
  show(strained.grad());
  show(strain.grad());
  return 0;
}
