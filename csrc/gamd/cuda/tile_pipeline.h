// The launches of the operators of ../gamd_tiles.h: a width and a kind of product known to the compiler.
#pragma once

#include "gamd/cuda/tile_messages.h"
#include "gamd/cuda/tile_pairs.h"

namespace openmm_gnn::cuda {

// A width and a kind of product as a type.
template <int kWidth, Products kProducts>
struct TileShape {
  static constexpr int width = kWidth;
  static constexpr Products products = kProducts;
};

// Calls launch(TileShape) for a width that exists; false for another one.
template <Products kProducts, class Launch>
bool with_width(int64_t width, const Launch& launch) {
  switch (width) {
    case 16:
      launch(TileShape<16, kProducts>());
      return true;
    case 32:
      launch(TileShape<32, kProducts>());
      return true;
    case 64:
      launch(TileShape<64, kProducts>());
      return true;
    case 128:
      launch(TileShape<128, kProducts>());
      return true;
    default:
      return false;
  }
}

template <class Launch>
bool with_shape(int64_t width, Products products, const Launch& launch) {
  switch (products) {
    case Products::kTF32:
      return with_width<Products::kTF32>(width, launch);
    case Products::kBfloat16:
      return with_width<Products::kBfloat16>(width, launch);
    default:
      return with_width<Products::kFloat32>(width, launch);
  }
}

template <class Launcher>
void gamd_edges(Launcher& launcher, int64_t width, Products products, const GamdEdges& in) {
  with_shape(width, products, [&](auto shape) {
    using Shape = decltype(shape);
    launcher.launch(blocks_for(in.pairs.count, kTileRows), TileEdges<Shape::width, Shape::products>{in});
  });
}

template <class Launcher>
void gamd_messages(Launcher& launcher, int64_t width, Products products, const GamdMessages& in) {
  with_shape(width, products, [&](auto shape) {
    using Shape = decltype(shape);
    launcher.launch(blocks_for(in.num_atoms, kAtomsOfTile), TileMessages<Shape::width, Shape::products>{in});
  });
}

template <class Launcher>
void gamd_strengths(Launcher& launcher, int64_t width, Products products, const GamdStrengths& in) {
  with_shape(width, products, [&](auto shape) {
    using Shape = decltype(shape);
    launcher.launch(blocks_for(in.pairs.count, kTileRows), TileStrengths<Shape::width, Shape::products>{in});
  });
}

}  // namespace openmm_gnn::cuda
