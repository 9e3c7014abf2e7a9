// Energy and forces of a file that `openmm-gnn export` wrote, in a program without Python: 30 lines on LibTorch.
//
//   openmm-gnn export gamd-argon argon --out argon.pt
//   g++ -std=c++17 -I$TORCH/include exported_forces.cpp -L$TORCH/lib -ltorch -ltorch_cpu -lc10 -ldl -o exported_forces
//   exported_forces libopenmm_gnn_cpu.so argon.pt < numbers
//
// TORCH is the folder of PyTorch, the library is in that of this package. The numbers are the number of particles, 1 if
// the System is periodic or 0, then the nine of the box vectors, and the positions, in nm. It prints the energy, kJ/mol,
// and the forces, kJ/mol/nm.
#include <ATen/ops/empty.h>
#include <dlfcn.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <cstdio>
#include <iostream>
#include <vector>

at::Tensor read(std::vector<int64_t> shape) {
  at::Tensor values = at::empty(shape, at::kDouble);
  for (int64_t k = 0; k < values.numel(); ++k) std::cin >> values.data_ptr<double>()[k];
  return values;
}

int main(int, char** arguments) {
  if (dlopen(arguments[1], RTLD_NOW) == nullptr) {  // makes the operators known to PyTorch
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  torch::jit::Module module = torch::jit::load(arguments[2]);
  int64_t particles = 0, periodic = 0;
  std::cin >> particles >> periodic;
  const c10::IValue box = periodic != 0 ? c10::IValue(read({3, 3})) : c10::IValue();
  const auto result = module.forward({read({particles, 3}), box}).toTuple();
  std::printf("%.9g\n", result->elements()[0].toTensor().item<double>());
  const at::Tensor forces = result->elements()[1].toTensor();
  for (int64_t k = 0; k < forces.numel(); ++k) std::printf("%.9g\n", forces.data_ptr<double>()[k]);
}
