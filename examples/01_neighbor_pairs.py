"""Neighbour pairs of a periodic liquid, and a force from them without writing a derivative.

You learn: what `neighbor_pairs` returns, that periodic images are its business, not yours, and that vectors and
distances can be differentiated, so any energy of them has forces.

Takes 3 seconds on a laptop's CPU. Run: python examples/01_neighbor_pairs.py
"""

from __future__ import annotations

import argparse
import math

import torch

from openmm_gnn import neighbor_pairs

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--short", action="store_true", help="a smaller system")
num_atoms = 20_000 if not parser.parse_args().short else 2_000

# An ideal gas at the density of liquid argon, in a triclinic box. Lengths in nm.
density = 21.0
box = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.9, 0.0], [-0.2, 0.3, 1.1]], dtype=torch.float64)
box *= (num_atoms / density / torch.linalg.det(box)) ** (1 / 3)
positions = torch.rand((num_atoms, 3), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) @ box

# pairs (2, P): atoms i and j; vectors (P, 3): from i to j, through the border of the box where that is shorter;
# distances (P,). full=False gives each pair once.
cutoff = 0.75
pairs, vectors, distances = neighbor_pairs(positions, cutoff, box, full=False)
mean_neighbors = 2 * pairs.shape[1] / num_atoms
expected = density * 4 / 3 * math.pi * cutoff**3
print(f"{num_atoms} atoms, {pairs.shape[1]} pairs within {cutoff} nm")
print(f"mean number of neighbours: {mean_neighbors:.2f} (an ideal gas of this density has {expected:.2f})")

# A soft repulsion, E = sum (1 - r / cutoff)^2 over pairs; the forces come from autograd.
positions.requires_grad_(True)
pairs, vectors, distances = neighbor_pairs(positions, cutoff, box, full=False)
energy = (1 - distances / cutoff).square().sum()
(gradient,) = torch.autograd.grad(energy, positions)
net_force = float(gradient.sum(dim=0).norm() / gradient.norm(dim=1).mean())
print(f"net force over mean force: {net_force:.1e} (action equals reaction: zero to rounding)")
