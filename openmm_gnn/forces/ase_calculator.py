"""A network as a calculator of ASE, the Atomic Simulation Environment: relaxations, phonons, small systems."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.weights import load_model


def ase_calculator(
    model: ForceModel | str | os.PathLike[str], topology: Any, atoms: Sequence[int] | None = None
) -> Any:
    """An ase.calculators.calculator.Calculator of a network, in ASE's units: eV, eV/angstrom.

    ```python
    water = ase.Atoms(symbols, positions, cell=cell, pbc=True)
    water.calc = ase_calculator("gamd-tip3p", topology)
    LBFGS(water).run(fmax=0.05)
    ```

    The box is the cell of the atoms where `pbc` is true in all three directions; there is none where it is false in
    all. A network that predicts forces directly has no energy, and the calculator gives none.

    Args:
        model: a network, or a name or path for `load_model`.
        topology: openmm.app.Topology of the atoms, in their order, with the bonds that the network sees.
        atoms: indices of those the network sees and moves; by default all that have an element.
    Raises:
        ImportError: if ASE is not installed.
        TopologyError: if the topology has an element the network does not know.
    """
    from ase.calculators.calculator import Calculator, all_changes
    from ase.units import kJ, mol, nm

    network = load_model(model)
    module = torch.jit.freeze(script_module(network, topology, atoms))
    numbers = np.array([0 if atom.element is None else atom.element.atomic_number for atom in topology.atoms()])

    class NetworkCalculator(Calculator):
        """Energy and forces of a network of openmm_gnn."""

        implemented_properties = ["energy", "forces"] if network.conservative else ["forces"]

        def calculate(
            self, atoms: Any = None, properties: Sequence[str] = ("forces",), system_changes: Any = all_changes
        ) -> None:
            super().calculate(atoms, properties, system_changes)
            _check_atoms(self.atoms, numbers)
            positions = torch.from_numpy(np.array(self.atoms.positions) / nm)
            box = _box_of(self.atoms)
            energy, forces = module(positions, None if box is None else torch.from_numpy(box / nm))
            self.results = {"forces": forces.numpy() * (kJ / mol / nm)}
            if network.conservative:
                self.results["energy"] = float(energy) * (kJ / mol)

    return NetworkCalculator()


def _check_atoms(atoms: Any, numbers: np.ndarray) -> None:
    """Refuse atoms of another topology.

    Raises:
        TopologyError: naming the first atom that differs.
    """
    if len(atoms) != len(numbers):
        raise TopologyError(f"there are {len(atoms)} atoms, the topology has {len(numbers)}: give that of these atoms")
    wrong = np.flatnonzero(atoms.numbers != numbers)
    if len(wrong):
        atom = int(wrong[0])
        raise TopologyError(
            f"atom {atom} has the atomic number {atoms.numbers[atom]}, in the topology {numbers[atom]}: give the atoms "
            "in the topology's order, and a particle without an element as X"
        )


def _box_of(atoms: Any) -> np.ndarray | None:
    """(3, 3) angstrom; None without periodic boundaries.

    Raises:
        SpecError: for boundaries that are periodic in one or two directions.
    """
    if not atoms.pbc.any():
        return None
    if not atoms.pbc.all():
        raise SpecError(
            f"pbc is {atoms.pbc.tolist()}: networks know boxes that are periodic in all directions, or none"
        )
    return np.array(atoms.cell)
