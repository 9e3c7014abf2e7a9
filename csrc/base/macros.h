// Marks a function that CPU and CUDA share: the same source is compiled by g++ and, for both sides, by nvcc.
#pragma once

#if defined(__CUDACC__)
#define OPENMM_GNN_HOST_DEVICE __host__ __device__ __forceinline__
// Before a loop over an array that shall live in registers.
#define OPENMM_GNN_UNROLL _Pragma("unroll")
#define OPENMM_GNN_UNROLL_FOUR _Pragma("unroll 4")
#else
// Forced, so that a shared function takes on the instruction set of the CPU function it is used in.
#define OPENMM_GNN_HOST_DEVICE inline __attribute__((always_inline))
#define OPENMM_GNN_UNROLL
#define OPENMM_GNN_UNROLL_FOUR
#endif
