"""The module of a learned CV against featurizer and network, in every box, and its gradient against differences."""

from __future__ import annotations

from dataclasses import replace

import mdtraj
import numpy as np
import openmm
import pytest
import torch
from finite_differences import finite_difference_deviation
from learned_cvs import chain, untrained_cv, values_of
from openmm import app, unit

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.forces.modules.cv_module import CVEnergyModule, CVModule, cv_energy_module
from openmm_gnn.forces.modules.openmm_module import frozen_deviation, translation_deviation
from openmm_gnn.md.simulation_system import SimulationSystem

TRICLINIC = np.array([[3.0, 0.0, 0.0], [0.9, 2.8, 0.0], [-0.7, 1.1, 2.9]])


def two_chains() -> SimulationSystem:
    """Two molecules, far apart through the middle of the box and near through its face, beside an argon atom."""
    topology, positions = app.Topology(), []
    one = chain()
    for _ in range(2):
        atoms = []
        molecule = topology.addChain()
        for residue in one.topology.residues():
            made = topology.addResidue(residue.name, molecule)
            atoms += [topology.addAtom(atom.name, atom.element, made) for atom in residue.atoms()]
        for bond in one.topology.bonds():
            topology.addBond(atoms[bond[0].index], atoms[bond[1].index])
    topology.addAtom("Ar", app.element.argon, topology.addResidue("AR", topology.addChain()))
    positions = [one.positions, one.positions + np.array([0.0, 2.5, 0.0]), [[1.0, 1.0, 1.0]]]
    system = openmm.System()
    for _ in range(13):
        system.addParticle(12.0)
    return SimulationSystem("two chains", system, topology, np.concatenate(positions))


def test_values_without_a_box_are_those_of_featurizer_and_network() -> None:
    system = chain()
    cv = untrained_cv(system, 3)
    module = torch.jit.script(CVModule(cv, system.topology).eval())
    for shift in (0.0, 300.0):
        found = module(torch.from_numpy(system.positions + shift), None)
        np.testing.assert_allclose(found, values_of(cv, system, system.positions, None), atol=1e-5)


def test_the_mean_over_atoms_is_the_mean() -> None:
    system = chain()
    cv = replace(untrained_cv(system), reduction="mean")
    module = CVModule(cv, system.topology)
    doubled = replace(cv, reduction="sum")
    centred, _ = module.prepared(torch.from_numpy(system.positions)[module.read_atoms], None)
    halved = CVModule(doubled, system.topology)
    halved.network.scalar_scale.mul_(2.0)
    halved.network.scalar_mean.mul_(2.0)
    halved.network.vector_scale.mul_(2.0)
    torch.testing.assert_close(module.values(centred, None), halved.values(centred, None))


@pytest.mark.parametrize("box", [np.diag([3.0, 2.9, 3.1]), TRICLINIC], ids=["orthogonal", "triclinic"])
def test_values_in_a_box_do_not_depend_on_images(box: np.ndarray) -> None:
    system = two_chains()
    cv = untrained_cv(system)
    truth = values_of(cv, system, system.positions, box)
    assert np.abs(truth - values_of(cv, system, system.positions, None)).max() > 1e-3
    module = torch.jit.script(CVModule(cv, system.topology).eval())
    generator = np.random.default_rng(3)
    for _ in range(4):
        wrapped = system.positions + generator.integers(-2, 3, size=system.positions.shape) @ box
        found = module(torch.from_numpy(wrapped), torch.from_numpy(box))
        np.testing.assert_allclose(found, truth, atol=1e-5)


@pytest.mark.parametrize("periodic", [False, True])
def test_forces_are_the_negative_gradient(periodic: bool) -> None:
    system = two_chains() if periodic else chain()
    box = torch.from_numpy(TRICLINIC) if periodic else None
    module = CVEnergyModule(CVModule(untrained_cv(system), system.topology, torch.float64), 1, "")
    positions = torch.from_numpy(system.positions)
    assert finite_difference_deviation(module, positions, box, step=1e-5) < 1e-6
    assert translation_deviation(module, positions, box) < 1e-9
    assert float(module(positions, box)[1].sum(dim=0).abs().max()) < 1e-9


def test_freezing_leaves_the_forces_as_they_are() -> None:
    system = chain()
    cv = untrained_cv(system)
    eager = CVEnergyModule(CVModule(cv, system.topology), 0, "")
    scripted = cv_energy_module(cv, system.topology)
    exact = CVEnergyModule(CVModule(cv, system.topology, torch.float64), 0, "")
    positions = torch.from_numpy(system.positions)
    with torch.no_grad():
        for _ in range(3):
            assert frozen_deviation(scripted, eager, positions, None) < 1e-5
        again = torch.jit.script(exact)
        for _ in range(3):
            assert frozen_deviation(again, exact, positions, None) < 1e-11


def test_the_gradient_mode_is_left_as_it_was() -> None:
    system = chain()
    scripted = torch.jit.freeze(cv_energy_module(untrained_cv(system), system.topology))
    for mode in (True, False):
        with torch.set_grad_enabled(mode):
            _, forces = scripted(torch.from_numpy(system.positions), None)
            assert torch.is_grad_enabled() is mode
        assert not forces.requires_grad
        assert float(forces.abs().max()) > 0


def test_another_topology_is_refused_with_the_first_atom_that_differs() -> None:
    cv = untrained_cv(chain())
    with pytest.raises(TopologyError, match="its encoder sees 6 atoms, the selection takes 8 of the system"):
        CVModule(cv, chain(8).topology)
    other = mdtraj.Topology.from_openmm(chain().topology)
    other.atom(4).element = mdtraj.element.sulfur
    first = other.atom(4)
    words = rf"its atom 4 \(. of 1:CHN3\) is atom 4 \({first.name} of CHN3\) of element S in the system"
    with pytest.raises(TopologyError, match=words):
        CVModule(cv, other)


def test_a_cv_learned_of_the_solute_alone_is_the_same_in_a_system_with_other_atoms_before_and_behind() -> None:
    system = chain()
    cv, topology = untrained_cv(system), app.Topology()
    water = topology.addResidue("HOH", topology.addChain())
    for name, element in (("O", app.element.oxygen), ("H1", app.element.hydrogen), ("H2", app.element.hydrogen)):
        topology.addAtom(name, element, water)
    solvated = app.Modeller(topology, np.zeros((3, 3)) * unit.nanometer)
    solvated.add(system.topology, system.positions * unit.nanometer)
    solvated.add(topology, np.ones((3, 3)) * unit.nanometer)
    positions = np.concatenate([np.zeros((3, 3)), system.positions, np.ones((3, 3))])
    found = CVModule(cv, solvated.topology)(torch.from_numpy(positions), None)
    np.testing.assert_array_equal(found, CVModule(cv, system.topology)(torch.from_numpy(system.positions), None))


def test_an_output_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SpecError, match="output is 2: the CV has 2"):
        cv_energy_module(untrained_cv(chain()), chain().topology, 2)
