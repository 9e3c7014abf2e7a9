"""A network or a learned CV as a model of metatomic, for the engines that read those: ASE, i-PI, PLUMED, LAMMPS.

The model is bound to the atoms of one topology, in its order. It searches neighbours itself, asks the engine for no
list, and takes all atoms at once. metatomic is imported with this file, which `forces.modules.exports` does when it
writes such a file.
"""

# No `from __future__ import annotations` here: TorchScript and metatomic read the types of functions.
import json
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035  (metatomic compares the types with these)

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput, System
from torch import Tensor

from openmm_gnn.base.files import write_atomically
from openmm_gnn.features.learned_cv import LearnedCV
from openmm_gnn.forces.modules.derivatives import derivatives_module, following
from openmm_gnn.kernels.library import PACKAGE
from openmm_gnn.networks.force_model import ForceModel

EXTENSIONS = "extensions"
"""Name of the folder beside a model that holds the operators."""


class MetatomicModel(torch.nn.Module):
    """Values of a network or a CV for each system, in metatomic's form.

    An energy is differentiable by positions and cell. So are features, the outputs of a CV. Forces that are predicted
    directly come as non_conservative_force, with an energy of zero that nothing can be derived from, and a
    non_conservative_stress that is not a number.
    """

    numbers: Tensor

    def __init__(self, network: ForceModel | LearnedCV, topology: Any, periodic: bool) -> None:
        """Arguments and errors as for `derivatives_module`."""
        super().__init__()
        self.is_cv = isinstance(network, LearnedCV)
        self.conservative = isinstance(network, LearnedCV) or network.conservative
        self.num_values = network.num_outputs if isinstance(network, LearnedCV) else 1
        self.derivatives = derivatives_module(network, topology, periodic)
        self.register_buffer("numbers", torch.tensor(atomic_numbers(topology), dtype=torch.int32))

    def forward(
        self,
        systems: List[System],  # noqa: UP006
        outputs: Dict[str, ModelOutput],  # noqa: UP006
        selected_atoms: Optional[Labels],  # noqa: UP045
    ) -> Dict[str, TensorMap]:  # noqa: UP006
        """The outputs that are asked for, as metatomic defines them; lengths nm, energies kJ/mol.

        A system without atoms has features of zero: PLUMED asks in this way how many there are.

        Raises:
            ValueError: if the atoms are not those of the topology, or only some of them, or if boundaries are periodic
                in one or two directions; torch.jit.Error once it is scripted.
        """
        values: List[Tensor] = []  # noqa: UP006
        forces: List[Tensor] = []  # noqa: UP006
        for system in systems:
            found, pushes = self.evaluated(system, selected_atoms, len(systems))
            values.append(found)
            forces.append(pushes)
        results: Dict[str, TensorMap] = {}  # noqa: UP006
        of_systems = labels("system", len(systems))
        for name in outputs:
            if name == "energy" or name == "feature":
                block = TensorBlock(torch.stack(values), of_systems, [], labels(name, self.num_values))
            elif name == "non_conservative_force":
                own = torch.arange(self.numbers.size(0), dtype=torch.int32)
                rows: List[Tensor] = []  # noqa: UP006
                for k in range(len(systems)):
                    rows.append(torch.stack([torch.full_like(own, k), own], dim=1))
                samples = Labels(["system", "atom"], torch.cat(rows))
                block = TensorBlock(torch.cat(forces).unsqueeze(2), samples, [labels("xyz", 3)], labels(name, 1))
            else:
                stress = torch.full((len(systems), 3, 3, 1), float("nan"), dtype=torch.float64)
                block = TensorBlock(stress, of_systems, [labels("xyz_1", 3), labels("xyz_2", 3)], labels(name, 1))
            results[name] = TensorMap(labels("_", 1), [block])
        return results

    def evaluated(
        self,
        system: System,
        selected_atoms: Optional[Labels],  # noqa: UP045
        num_systems: int,
    ) -> tuple[Tensor, Tensor]:
        """Values (K,) of one system, differentiable, and the forces (N, 3) of the first one."""
        positions = system.positions
        if self.is_cv and positions.size(0) == 0:
            return torch.zeros([self.num_values], dtype=positions.dtype), positions
        cell = self.checked(system, selected_atoms, num_systems)
        found, forces, strain = self.derivatives(positions, cell)
        if self.conservative:
            rows: List[Tensor] = []  # noqa: UP006
            for k in range(self.num_values):
                rows.append(following(found[k], forces[k], strain[k], positions, cell))
            found = torch.stack(rows)
        return found, forces[0]

    def checked(self, system: System, selected_atoms: Optional[Labels], num_systems: int) -> Optional[Tensor]:  # noqa: UP045
        """The cell, None if there is none; refuses a system that the model was not made for."""
        types = system.types
        if types.size(0) != self.numbers.size(0) or not torch.equal(types, self.numbers):
            raise ValueError(
                f"the types of {types.size(0)} atoms came in, which are not the atomic numbers of the "
                f"{self.numbers.size(0)} atoms of the topology that the model was exported for, in its order: give all "
                "of these atoms, or export the model for this topology"
            )
        if selected_atoms is not None and len(selected_atoms) != num_systems * types.size(0):
            raise ValueError(
                f"{len(selected_atoms)} atoms are selected: the model computes all {types.size(0)} atoms at once, so "
                "run it in one domain and without a selection"
            )
        periodic = int(system.pbc.sum())
        if periodic != 0 and periodic != 3:
            raise ValueError(f"boundaries are periodic in {periodic} directions: the model knows three, or none")
        return system.cell if periodic == 3 else None


def labels(name: str, count: int) -> Labels:
    """Entries from 0 on, as `Labels.range`, which cannot be saved with a module."""
    return Labels([name], torch.arange(count, dtype=torch.int32).reshape(-1, 1))


def atomic_numbers(topology: Any) -> list[int]:
    """Atomic numbers of all particles; 0 for those without an element."""
    return [0 if atom.element is None else atom.element.atomic_number for atom in topology.atoms()]


def metatomic_model(network: ForceModel | LearnedCV, topology: Any, periodic: bool) -> AtomisticModel:
    """The model, with its units, in evaluation mode; arguments and errors as for `derivatives_module`."""
    module = MetatomicModel(network, topology, periodic).eval()
    if module.is_cv:
        outputs = {"feature": ModelOutput(sample_kind="system")}
    else:
        outputs = {"energy": ModelOutput(unit="kJ/mol", sample_kind="system")}
        if not module.conservative:
            outputs["non_conservative_force"] = ModelOutput(unit="kJ/mol/nm", sample_kind="atom")
            outputs["non_conservative_stress"] = ModelOutput(unit="kJ/mol/nm^3", sample_kind="system")
    capabilities = ModelCapabilities(
        outputs=outputs,
        atomic_types=sorted(set(atomic_numbers(topology))),
        interaction_range=math.inf if isinstance(network, LearnedCV) else network.spec.reach,
        length_unit="nm",
        supported_devices=["cpu"],
        dtype="float64",
    )
    kind = "collective variables" if isinstance(network, LearnedCV) else f"force model, {network.spec.kind}"
    metadata = ModelMetadata(
        name="openmm_gnn",
        description=f"A {kind}, for {topology.getNumAtoms()} particles in the order of their topology. The operators "
        f"are in the folder {EXTENSIONS}.",
    )
    return AtomisticModel(module, metadata, capabilities)


def save_metatomic(model: AtomisticModel, path: Path) -> Path:
    """Write a model, and the operators into the folder EXTENSIONS beside it, where engines look for them.

    Returns:
        The folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with _operators_alone(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        model.save(unfinished)
    extra = {"extensions": ""}
    torch.jit.load(str(unfinished), _extra_files=extra)
    (recorded,) = json.loads(extra["extensions"])
    folder = path.parent / EXTENSIONS
    copy = folder / recorded["path"].lstrip("/")  # where metatomic looks, for absolute paths too
    copy.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(copy, lambda file: file.write((PACKAGE / "libopenmm_gnn_cpu.so").read_bytes()))
    os.replace(unfinished, path)
    return folder


@contextmanager
def _operators_alone() -> Iterator[None]:
    """metatomic records every library that PyTorch has loaded, and asks for all of them: it is to find the one used."""
    loaded = torch.ops.loaded_libraries
    torch.ops.loaded_libraries = {str(PACKAGE / "libopenmm_gnn_cpu.so")}
    try:
        yield
    finally:
        torch.ops.loaded_libraries = loaded
