// The operators of ../gamd_tiles.h on the GPU; tile_pipeline.h has their launches, each kernel's file what it computes.
#include "gamd/cuda/tile_sums.h"

#include "base/cuda/launch.h"
#include "gamd/cuda/tile_pipeline.h"

namespace openmm_gnn::cuda {

void launch_gamd_edges(StreamHandle stream, int64_t width, Products products, const GamdEdges& in) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  gamd_edges(launcher, width, products, in);
}

void launch_gamd_messages(StreamHandle stream, int64_t width, Products products, const GamdMessages& in) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  gamd_messages(launcher, width, products, in);
}

void launch_gamd_strengths(StreamHandle stream, int64_t width, Products products, const GamdStrengths& in) {
  StreamLauncher launcher(static_cast<cudaStream_t>(stream));
  gamd_strengths(launcher, width, products, in);
}

}  // namespace openmm_gnn::cuda
