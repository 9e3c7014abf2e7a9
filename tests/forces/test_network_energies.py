"""What a network has no energy or pressure for is refused, by each barostat and after a System came from XML."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit
from warm_python import run_python

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.force import GAMDSpec, NeighborSpec, VectorGAMDSpec
from openmm_gnn.forces import python_force, torch_force
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.forces.multiple_time_step import accelerate
from openmm_gnn.forces.network_energies import NetworkInSystem, check_networks, networks_in
from openmm_gnn.md.run_settings import ComputeSettings, RunSettings
from openmm_gnn.md.systems.fluids import argon
from openmm_gnn.md.systems.structure_files import relaxed
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.weights import make_model
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.simulate import simulate

BACKENDS = available_backends()
LABELLED = {"data": [{"directory": "argon", "thermostat": "langevin"}]}
FLUID = argon(64)
FORCES_ALONE, WITH_ENERGY = (NetworkInSystem(energy, len(FLUID.positions), True) for energy in (False, True))
BAROSTATS = [
    openmm.MonteCarloBarostat(1.0, 100.0),
    openmm.MonteCarloAnisotropicBarostat((1.0, 1.0, 1.0), 100.0),
    openmm.MonteCarloFlexibleBarostat(1.0, 100.0),
    openmm.MonteCarloMembraneBarostat(
        1.0, 0.0, 100.0, openmm.MonteCarloMembraneBarostat.XYIsotropic, openmm.MonteCarloMembraneBarostat.ZFree
    ),
]


def network(conservative: bool) -> ForceModel:
    if conservative:
        spec = VectorGAMDSpec(NeighborSpec(0.5), (18,), 16, 1, use_bonds=False, conservative=True, metadata=LABELLED)
        return make_model(spec).eval()
    return make_model(GAMDSpec(NeighborSpec(0.5), (18,), width=8, num_layers=1, num_radial=8, metadata=LABELLED)).eval()


@cache
def xml_of(conservative: bool, backend: str) -> str:
    """The fluid with a network in place of its forces."""
    system = openmm.System()
    for mass in FLUID.masses:
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*np.asarray(FLUID.box_vectors))
    system.addForce(gamd_force(network(conservative), FLUID.topology, backend))
    return openmm.XmlSerializer.serialize(system)


def system_of(conservative: bool, *others: openmm.Force, backend: str = BACKENDS[0]) -> openmm.System:
    """That System, read from XML, with other forces."""
    system = openmm.XmlSerializer.deserialize(xml_of(conservative, backend))
    for force in others:
        system.addForce(copy.deepcopy(force))
    return system


def test_a_force_without_energy_says_so_in_its_name() -> None:
    names = [gamd_force(network(conservative), FLUID.topology).getName() for conservative in (False, True)]
    assert names == ["GAMDForceWithoutEnergy", "GAMDForce"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("conservative", "expected"), [(False, FORCES_ALONE), (True, WITH_ENERGY)])
def test_networks_are_known_in_a_system_from_xml(backend: str, conservative: bool, expected: NetworkInSystem) -> None:
    assert networks_in(system_of(conservative, backend=backend)) == [expected]


def test_a_network_is_known_in_a_force_of_collective_variables() -> None:
    variable, system = openmm.CustomCVForce("2*network"), copy.deepcopy(FLUID.system)
    variable.addCollectiveVariable("network", gamd_force(network(False), FLUID.topology))
    system.addForce(variable)
    assert networks_in(copy.deepcopy(system)) == [FORCES_ALONE]


def test_every_barostat_is_refused() -> None:
    alone, energetic, plain = system_of(False), system_of(True), copy.deepcopy(FLUID.system)
    for barostat in BAROSTATS:
        name = type(barostat).__name__
        index = alone.addForce(copy.deepcopy(barostat))
        with pytest.raises(SpecError, match=f"{name} needs energies, .* run at constant volume, or train with --cons"):
            check_networks(alone, network_pressure=True)
        alone.removeForce(index)
    energetic.addForce(copy.deepcopy(barostat))
    with pytest.raises(SpecError, match=f"{name} acts on the pressure, .*--accelerate.*--network-pressure"):
        check_networks(energetic)
    check_networks(energetic, network_pressure=True)
    plain.addForce(copy.deepcopy(barostat))
    check_networks(plain)


def test_an_accelerated_system_has_the_energies_and_the_pressure_of_its_own_forces() -> None:
    system = copy.deepcopy(FLUID.system)
    system.addForce(openmm.MonteCarloBarostat(1.0, 100.0))
    accelerated = accelerate(system, FLUID.topology, network(False), 2, 0.004).system
    assert networks_in(accelerated) == []
    check_networks(accelerated)
    found = [torch_force.module_of(force) or python_force.module_of(force) for force in accelerated.getForces()]
    assert [module.watches_box for module in found if module is not None] == [False]


@pytest.mark.parametrize("backend", BACKENDS)
def test_there_is_nothing_to_minimise_without_an_energy(backend: str) -> None:
    """Also where other forces have one: the minimiser would follow those alone, against the network's forces."""
    moved = FLUID.positions + np.random.default_rng(1).normal(0, 0.01, FLUID.positions.shape)
    walls = openmm.CustomExternalForce("100*(x-1)^2")
    for index in range(len(moved)):
        walls.addParticle(index, [])
    nested = openmm.CustomCVForce("2*network")
    nested.addCollectiveVariable("network", gamd_force(network(False), FLUID.topology, backend))
    beside = system_of(False, walls, nested, backend=backend)
    beside.removeForce(0)
    for system in (system_of(False, backend=backend), system_of(False, walls, backend=backend), beside):
        with pytest.raises(
            SpecError, match="Force.* of the System has forces and no energy, .*: leave --minimize away"
        ):
            relaxed(system, moved)(1)
    for system in (system_of(True, backend=backend), system_of(True, walls, backend=backend)):
        assert np.isfinite(relaxed(system, moved)(1)).all()


def test_a_network_beside_the_forces_that_it_stands_for_is_refused() -> None:
    own = [force for force in FLUID.system.getForces() if not isinstance(force, openmm.CMMotionRemover)]
    with pytest.raises(SpecError, match="the System has CustomNonbondedForce beside a network .* count twice"):
        check_networks(system_of(False, *own))
    check_networks(system_of(False, openmm.CMMotionRemover()))
    mixed = copy.deepcopy(FLUID.system)
    mixed.addForce(gamd_force(network(False), FLUID.topology, atoms=range(8)))
    check_networks(mixed)


@pytest.mark.parametrize("conservative", [False, True])
def test_a_run_with_a_barostat_is_refused_and_one_without_says_which_energies_it_knows(
    conservative: bool, tmp_path: Path
) -> None:
    settings = RunSettings(steps=4, stride=2, equilibration=0.0)
    for system in (system_of(conservative, openmm.MonteCarloBarostat(1.0, 100.0)), system_of(conservative)):
        start = replace(FLUID, system=system)
        if system.getNumForces() == 2:
            with pytest.raises(SpecError, match="MonteCarloBarostat"):
                simulate(start, tmp_path / "refused", settings, compute=ComputeSettings("Reference"))
            if conservative:
                accepted = replace(settings, network_pressure=True)
                simulate(start, tmp_path / "accepted", accepted, compute=ComputeSettings("Reference"))
        else:
            run = simulate(start, tmp_path / "run", settings, compute=ComputeSettings("Reference")).directory
            assert np.isfinite(run.read_log()["potential_kj_mol"]).all() == conservative


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("conservative", [False, True])
def test_a_barostat_in_a_script_is_seen_by_a_network_without_energy(
    backend: str, conservative: bool, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """TorchForce calls from outside Python: there the warning is on the standard error."""
    barostat = openmm.MonteCarloBarostat(1.0, 100.0, 1)
    system = system_of(conservative, barostat, backend=backend)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(FLUID.positions)
    context.getIntegrator().step(3)
    said = capfd.readouterr().err + " ".join(str(warning.message) for warning in recwarn)
    assert said.count("a barostat accepts every change of the volume") == (not conservative)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_system_with_a_network_runs_from_xml_in_a_new_process(backend: str, tmp_path: Path) -> None:
    (tmp_path / "fluid.xml").write_text(xml_of(False, backend))
    with open(tmp_path / "fluid.pdb", "w") as file:
        app.PDBFile.writeFile(FLUID.topology, FLUID.positions * unit.nanometer, file)
    command = f"simulate {tmp_path}/fluid.xml --topology {tmp_path}/fluid.pdb --out {tmp_path}/run --steps 4 --stride 2"
    options = "--equilibration 0 --platform CPU --threads 1 --quiet"
    done = run_python("-m", "openmm_gnn", *command.split(), *options.split())
    assert done.returncode == 0, done.stderr
    assert len(RunDirectory(tmp_path / "run").read_positions()[0]) == 2
