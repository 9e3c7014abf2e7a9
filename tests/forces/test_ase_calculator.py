"""A network as a calculator of ASE: forces of OpenMM's Force, and gradients of the energy, in ASE's units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from exported_forces import evaluated, example

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.forces.ase_calculator import ase_calculator
from openmm_gnn.forces.backends import available_backends

ase = pytest.importorskip("ase", reason="ASE is not installed")
EV = 96.48533212331
"""kJ/mol: the Faraday constant in kC/mol."""


def atoms_of(name: str) -> Any:
    """The atoms of an example, in angstrom, with their calculator."""
    one = example(name)
    symbols = ["X" if atom.element is None else atom.element.symbol for atom in one.start.topology.atoms()]
    box = one.start.box_vectors
    cell = {} if box is None else {"cell": 10 * box, "pbc": True}
    atoms = ase.Atoms(symbols, positions=10 * one.start.positions, **cell)
    atoms.calc = ase_calculator(one.network, one.start.topology)
    return atoms


@pytest.mark.parametrize("name", ["gamd-tip3p", "gamd-tip4pew", "energy-torchmd-et"])
def test_energy_and_forces_are_those_of_openmm_in_other_units(name: str) -> None:
    """In a box, with particles that have no element, and without a box; to the rounding of float32."""
    one, atoms = example(name), atoms_of(name)
    energy, forces = evaluated(one.system(available_backends()[0]), one.start.positions)
    assert atoms.get_potential_energy() == pytest.approx(energy / EV, rel=1e-6)
    assert atoms.get_forces() == pytest.approx(forces / (10 * EV), abs=1e-6 * np.abs(forces).max() / (10 * EV))


def test_forces_are_the_gradient_of_the_energy() -> None:
    """By differences over 0.02 A: energies of 15 eV are float32 in steps of 1e-6 eV, which leaves 1e-4 eV/A.

    The third derivative leaves h^2 / 6 of it, h = 0.01 A: below 2 % of the largest force where forces change over
    0.1 A.
    """
    atoms = atoms_of("gamd-tip3p")
    right = atoms.get_forces()
    largest = np.abs(right).max()
    assert largest > 0.5
    for atom, axis in ((0, 0), (100, 1), (191, 2)):
        energies = []
        for step in (0.01, -0.01):
            moved = atoms.copy()
            moved.calc = atoms.calc
            moved.positions[atom, axis] += step
            energies.append(moved.get_potential_energy())
        found = -(energies[0] - energies[1]) / 0.02
        assert found == pytest.approx(right[atom, axis], abs=2e-4 + 0.02 * largest)


def test_a_relaxation_goes_downhill() -> None:
    from ase.optimize import FIRE

    atoms = atoms_of("gamd-tip3p")
    before = atoms.get_potential_energy()
    FIRE(atoms, logfile=None, maxstep=0.02).run(steps=5)
    assert atoms.get_potential_energy() < before - 1e-3


def test_a_network_without_an_energy_gives_none() -> None:
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms = atoms_of("gamd-argon")
    assert atoms.get_forces().shape == (258, 3)
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()


def test_other_atoms_and_half_a_box_are_refused() -> None:
    atoms = atoms_of("gamd-argon")
    atoms.pbc = (True, True, False)
    with pytest.raises(SpecError, match=r"pbc is \[True, True, False\]"):
        atoms.get_forces()
    wrong = atoms_of("gamd-argon")
    wrong.symbols[3] = "O"
    with pytest.raises(TopologyError, match="atom 3 has the atomic number 8, in the topology 18"):
        wrong.get_forces()
    fewer = atoms[:7]
    fewer.calc = atoms.calc
    with pytest.raises(TopologyError, match="there are 7 atoms, the topology has 258"):
        fewer.get_forces()
