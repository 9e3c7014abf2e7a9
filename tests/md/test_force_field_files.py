"""Systems from a structure and force-field files: what OpenMM makes of them by hand, and refusals in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from command_lines import invoke
from openmm import app, unit
from small_water import water_on_a_lattice

from openmm_gnn.base.errors import DataError, SpecError, TopologyError
from openmm_gnn.data.labels.trajectories import LabelledTrajectories
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.md.systems.structure_files import ForceFieldSettings
from openmm_gnn.md.systems.systems import load_system, save_system

MOLECULES, EDGE = 27, 1.6


def write_water(path: Path, edge: float = EDGE, box: bool = True, clash: bool = False) -> Path:
    """A lattice of water as PDB."""
    topology = water_topology(MOLECULES, edge)
    if not box:
        topology.setPeriodicBoxVectors(None)
    positions = water_on_a_lattice(3, edge / 3)
    if clash:
        positions[3:6] = positions[:3] + np.array([0.0, 0.0, 0.14])
    with path.open("w") as file:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, file)
    return path


def test_a_placeholder_of_a_box_is_left_out_and_said(tmp_path: Path) -> None:
    """Structures by NMR carry CRYST1 1 1 1: the System is that of the file without the line."""
    plain = write_water(tmp_path / "plain.pdb", box=False)
    cell = "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n"
    placed = tmp_path / "placed.pdb"
    placed.write_text(cell + plain.read_text())
    with pytest.warns(UserWarning, match=r"the box of 0.1 x 0.1 x 0.1 nm has no room for 81 atoms"):
        system = made(placed, "tip3p.xml")
    assert not system.periodic and system.topology.getPeriodicBoxVectors() is None
    expected = made(plain, "tip3p.xml")
    np.testing.assert_array_equal(*(forces_of(one.system, one.positions) for one in (system, expected)))


def forces_of(system: openmm.System, positions: np.ndarray) -> np.ndarray:
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    context.computeVirtualSites()
    return context.getState(forces=True).getForces(asNumpy=True)._value


def made(path: Path, files: str | Sequence[str | Path], **choices: Any) -> SimulationSystem:
    return load_system(path, force_field=ForceFieldSettings(files, **choices))


@pytest.mark.parametrize("files", ["tip3p.xml", ("amber14-all.xml", "amber14/tip3p.xml")])
def test_a_box_gets_the_forces_that_openmm_gives_it_with_pme(tmp_path: Path, files: str | tuple[str, ...]) -> None:
    pdb = write_water(tmp_path / "box.pdb")
    system = made(pdb, files, nonbonded_cutoff=0.75)
    by_hand = app.ForceField(*([files] if isinstance(files, str) else files)).createSystem(
        app.PDBFile(str(pdb)).topology, nonbondedMethod=app.PME, nonbondedCutoff=0.75
    )
    np.testing.assert_array_equal(*(forces_of(one, system.positions) for one in (system.system, by_hand)))
    assert system.periodic and system.name == "box" and system.bonded_substeps == 1
    assert system.system.getNumConstraints() == 3 * MOLECULES


def test_without_a_box_every_pair_counts(tmp_path: Path) -> None:
    system = made(write_water(tmp_path / "drop.pdb", box=False), "tip3p.xml")
    assert not system.periodic and system.box_vectors is None
    charges = np.tile([-0.834, 0.417, 0.417], MOLECULES)
    vectors = system.positions[None] - system.positions[:, None]
    distances = np.linalg.norm(vectors, axis=-1) + np.eye(3 * MOLECULES)
    other = np.repeat(np.arange(MOLECULES), 3)[:, None] != np.repeat(np.arange(MOLECULES), 3)[None]
    coulomb = 138.935457 * charges[:, None] * charges[None] * other / distances**3  # on hydrogens nothing else acts
    expected = -(coulomb[..., None] * vectors).sum(axis=1)
    hydrogens = np.arange(3 * MOLECULES) % 3 != 0
    found = forces_of(system.system, system.positions)
    np.testing.assert_allclose(found[hydrogens], expected[hydrogens], rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(
    ("constraints", "flexible_water", "count", "substeps"),
    [("none", False, 3, 1), ("none", True, 0, 4), ("h-bonds", True, 2, 1), ("all-bonds", False, 3, 1)],
)
def test_constraints_are_those_asked_for_and_free_bonds_get_substeps(
    tmp_path: Path, constraints: str, flexible_water: bool, count: int, substeps: int
) -> None:
    pdb = write_water(tmp_path / "box.pdb")
    system = made(pdb, "tip3p.xml", nonbonded_cutoff=0.7, constraints=constraints, flexible_water=flexible_water)
    assert system.system.getNumConstraints() == count * MOLECULES
    assert system.bonded_substeps == substeps


def test_amoeba_stays_flexible_unless_asked_otherwise(tmp_path: Path) -> None:
    pdb = write_water(tmp_path / "box.pdb")
    free = made(pdb, "amoeba2018.xml", nonbonded_cutoff=0.7)
    assert (free.system.getNumConstraints(), free.bonded_substeps) == (0, 4)
    bound = made(pdb, "amoeba2018.xml", nonbonded_cutoff=0.7, constraints="h-bonds")
    assert (bound.system.getNumConstraints(), bound.bonded_substeps) == (2 * MOLECULES, 1)


def test_charge_sites_that_the_structure_lacks_are_added(tmp_path: Path) -> None:
    system = made(write_water(tmp_path / "box.pdb"), ["tip4pew.xml"], nonbonded_cutoff=0.7)
    assert system.system.getNumParticles() == 4 * MOLECULES == len(system.positions)
    assert sum(system.system.isVirtualSite(k) for k in range(4 * MOLECULES)) == MOLECULES
    save_system(tmp_path / "saved", system)  # as `label` does
    assert load_system(tmp_path / "saved").topology.getNumAtoms() == 4 * MOLECULES


def test_runs_start_without_the_clashes_of_the_structure(tmp_path: Path) -> None:
    system = made(write_water(tmp_path / "box.pdb", clash=True), "tip3p.xml", nonbonded_cutoff=0.7)
    before, after = (np.abs(forces_of(system.system, where)).max() for where in (system.positions, system.start(1)))
    assert before > 1e5 and after < 1e4
    lengths = np.linalg.norm(system.start(1)[1::3] - system.start(1)[::3], axis=1)
    np.testing.assert_allclose(lengths, 0.09572, atol=1e-5)
    assert system.start(1) is system.start(2)  # minimised once


def test_what_cannot_become_a_system_is_refused_in_words(tmp_path: Path) -> None:
    pdb = write_water(tmp_path / "box.pdb")
    (tmp_path / "broken.xml").write_text("<ForceField>")
    for path, files, message in (
        (tmp_path / "none.pdb", "tip3p.xml", "there is no file .*none.pdb"),
        (pdb, "amber99.xml", "there is no force-field file amber99.xml"),
        (pdb, tmp_path / "none.xml", "there is no force-field file .*none.xml"),
        (pdb, tmp_path / "broken.xml", "cannot be read together: .*broken.xml"),
        (tmp_path / "box.xml", "tip3p.xml", "make a System of a structure: give one of .*'.pdb'"),
    ):
        with pytest.raises(DataError, match=message):
            made(path, [files], nonbonded_cutoff=0.7)
    with pytest.raises(TopologyError, match="amber14/protein.ff14SB.xml cannot make a System of .*No template found"):
        made(pdb, "amber14/protein.ff14SB.xml", nonbonded_cutoff=0.7)
    with pytest.raises(TopologyError, match="is 1.600 nm wide, less than twice the cutoff of 1 nm.*at most 0.800 nm"):
        made(pdb, "tip3p.xml")
    with pytest.raises(DataError, match="there is no force-field file amber99.xml"):
        made(pdb, ["tip3p.xml", "amber99.xml"], nonbonded_cutoff=0.7)
    with pytest.raises(SpecError, match="nonbonded_cutoff is -1"):
        made(pdb, "tip3p.xml", nonbonded_cutoff=-1.0)
    with pytest.raises(DataError, match="is a structure without forces: name force-field files"):
        load_system(pdb)


def test_label_takes_a_structure_and_force_field_files(tmp_path: Path) -> None:
    pdb = write_water(tmp_path / "box.pdb")
    options = "--force-field tip4pew.xml --nonbonded-cutoff 0.7 --seeds 1 --frames 2 --stride 5 --equilibration 0.02"
    result = invoke(["label", str(pdb), "--out", str(tmp_path / "data"), *options.split(), "--quiet"])
    assert result.exit_code == 0, (result.output, result.exception)
    data = LabelledTrajectories.open(tmp_path / "data")
    system: SimulationSystem = data.system
    forces = forces_of(system.system, np.array(data.trajectories[0].positions[1]))
    found = data.trajectories[0].forces[1]
    np.testing.assert_allclose(found, forces, rtol=0, atol=2e-3 * np.abs(forces).max())  # of PME
