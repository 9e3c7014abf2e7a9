// The launches of the operators of ../gamd_tiles.h: a width and a kind of product known to the compiler.
#pragma once

#include "tile_messages.h"
#include "tile_pairs.h"

namespace openmm_gnn::cuda {

// A width and a kind of product as a type.
template <int kWidth, bool kTensor>
struct TileShape {
  static constexpr int width = kWidth;
  static constexpr bool tensor = kTensor;
};

// Calls launch(TileShape) for a width that exists; false for another one.
template <bool kTensor, class Launch>
bool with_width(int64_t width, const Launch& launch) {
  switch (width) {
    case 16:
      launch(TileShape<16, kTensor>());
      return true;
    case 32:
      launch(TileShape<32, kTensor>());
      return true;
    case 64:
      launch(TileShape<64, kTensor>());
      return true;
    case 128:
      launch(TileShape<128, kTensor>());
      return true;
    default:
      return false;
  }
}

template <class Launch>
bool with_shape(int64_t width, bool tensor_cores, const Launch& launch) {
  return tensor_cores ? with_width<true>(width, launch) : with_width<false>(width, launch);
}

template <class Launcher>
void gamd_edges(Launcher& launcher, int64_t width, bool tensor_cores, const GamdEdges& in) {
  with_shape(width, tensor_cores, [&](auto shape) {
    using Shape = decltype(shape);
    launcher.launch(blocks_for(in.pairs.count, kTileRows), TileEdges<Shape::width, Shape::tensor>{in});
  });
}

template <class Launcher>
void gamd_messages(Launcher& launcher, int64_t width, bool tensor_cores, const GamdMessages& in) {
  with_shape(width, tensor_cores, [&](auto shape) {
    using Shape = decltype(shape);
    launcher.launch(blocks_for(in.num_atoms, kAtomsOfTile), TileMessages<Shape::width, Shape::tensor>{in});
  });
}

template <class Launcher>
void gamd_strengths(Launcher& launcher, int64_t width, bool tensor_cores, const GamdStrengths& in) {
  with_shape(width, tensor_cores, [&](auto shape) {
    using Shape = decltype(shape);
    launcher.launch(blocks_for(in.pairs.count, kTileRows), TileStrengths<Shape::width, Shape::tensor>{in});
  });
}

}  // namespace openmm_gnn::cuda
