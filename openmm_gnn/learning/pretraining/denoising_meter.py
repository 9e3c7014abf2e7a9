"""The error of denoising, a share of the noise: on molecules held out, and on structures that were never trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.data.conformers.conformations import check_elements
from openmm_gnn.features.selection import select_atoms
from openmm_gnn.features.topologies import as_mdtraj
from openmm_gnn.learning.pretraining.noisy_frames import noise_scale_of, standard_noise
from openmm_gnn.md.systems.structure_files import read_structure
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.weights import load_encoder, save_network

METADATA_KEY = "denoising_error"
DRAWS = 10
"""How often noise is drawn for each structure."""
ERROR = "validation_error"
"""The column of log.csv by which weights are chosen: all held-out molecules, at the spec's scale of the noise."""


class DenoisingErrorMeter:
    """sum |predicted - noise|^2 / sum |noise|^2, a share of the mean square: 0 is perfect, 1.0 has learned nothing.

    Args:
        shape: numbers of the groups that have errors of their own, along each dimension; () is one error.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.sums = torch.zeros((*shape, 2), dtype=torch.float64)
        """(*shape, 2), the squared error and the squared noise."""

    def add(self, predicted: Tensor, noise: Tensor, *where: Tensor | int) -> None:
        """Both (N, 3), in the same unit; `where` they belong, for each dimension of the shape a number or (N,)."""
        squares = torch.stack([(predicted - noise).double(), noise.double()], dim=1).square().sum(dim=2).cpu()
        if where:
            index = tuple(torch.as_tensor(k).cpu().expand(len(squares)) for k in where)
            self.sums.index_put_(index, squares, accumulate=True)
        else:
            self.sums += squares.sum(dim=0)

    def error_at(self, *where: int) -> float:
        """The error of one group, summed over dimensions that are left out, or all; NaN where nothing was added."""
        squared_error, squared_noise = self.sums[where].reshape(-1, 2).sum(dim=0)
        return float(squared_error / squared_noise)


def denoising_error(
    encoder: Encoder, molecules: Sequence[tuple[Tensor, Tensor]], noise_scale: float, seed: int = 0
) -> float:
    """How well the denoising head sees noise it has not seen: 1.0 is what predicting no noise at all gets.

    The mean displacement of a molecule cannot be seen by a network that ignores translation: of N atoms, at least 1 / N
    remains, whatever the network.

    Args:
        molecules: atomic numbers (N,) and positions (N, 3) in the encoder's length unit, one molecule each.
        noise_scale: standard deviation of a component, in the same unit.
    """
    meter = DenoisingErrorMeter()
    with torch.no_grad():
        for k, (atomic_numbers, positions) in enumerate(molecules):
            noise = noise_scale * standard_noise(len(positions), seed, k).to(positions)
            meter.add(encoder.predicted_noise(atomic_numbers, positions + noise), noise)
    return meter.error_at()


def solute(path: Path, spec: EncoderSpec, hydrogens: bool = False) -> tuple[Tensor, Tensor]:
    """Atomic numbers (N,) and positions (N, 3) in the encoder's length unit, of all that is neither water nor ion.

    Raises:
        DataError: if the file cannot be read.
        SpecError: if it holds an element that the encoder does not know.
    """
    topology, positions = read_structure(path)
    named = as_mdtraj(topology)
    atoms = select_atoms(named, "not water" if hydrogens else None)
    numbers = torch.tensor([named.atom(int(index)).element.number for index in atoms])
    try:
        check_elements(spec, sorted(set(numbers.tolist())))
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from error
    return numbers, torch.from_numpy(positions[atoms] * spec.per_nm).float()


def record_denoising_errors(
    bundle: str | os.PathLike[str], structures: Sequence[Path], hydrogens: bool = False
) -> dict[str, float]:
    """The error on each structure by the name of its file, also written into the metadata of the bundle."""
    encoder = load_encoder(bundle)
    errors = dict(encoder.spec.metadata.get(METADATA_KEY, {}))
    for path in structures:
        molecules = [solute(path, encoder.spec, hydrogens)] * DRAWS
        errors[path.name] = denoising_error(encoder, molecules, noise_scale_of(encoder.spec))
    save_network(encoder, bundle, {**encoder.spec.metadata, METADATA_KEY: errors})
    return errors
