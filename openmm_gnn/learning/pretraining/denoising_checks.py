"""How well a pretrained encoder denoises structures it was not trained on, kept with its weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.data.conformers.conformations import check_elements
from openmm_gnn.features.selection import as_mdtraj, select_atoms
from openmm_gnn.learning.pretraining.denoising import denoising_error
from openmm_gnn.learning.pretraining.noisy_frames import noise_scale_of
from openmm_gnn.md.systems.structure_files import read_structure
from openmm_gnn.networks.weights import load_encoder, save_network

METADATA_KEY = "denoising_error"
DRAWS = 10
"""Of the noise, for each structure."""


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
