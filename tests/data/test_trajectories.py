"""Reading labelled trajectories: what is there, what is held out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.growing_array import GrowingArray
from openmm_gnn.data.labels.trajectories import (
    LABELLED,
    LabelledTrajectories,
    frame_fields,
    trajectory_name,
)
from openmm_gnn.md.systems.systems import SimulationSystem, save_system

FRAMES = 8


def carbon_monoxide(periodic: bool = True) -> SimulationSystem:
    """One molecule and one virtual site."""
    topology = app.Topology()
    residue = topology.addResidue("CMO", topology.addChain())
    carbon, oxygen = (topology.addAtom(name, app.Element.getBySymbol(name), residue) for name in ("C", "O"))
    topology.addAtom("M", None, residue)
    topology.addBond(carbon, oxygen)
    system = openmm.System()
    for mass in (12.0, 16.0, 0.0):
        system.addParticle(mass)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
    force = openmm.NonbondedForce()
    for _ in range(3):
        force.addParticle(0.0, 0.3, 0.1)
    if periodic:
        system.setDefaultPeriodicBoxVectors((2, 0, 0), (0, 2, 0), (0, 0, 2))
        topology.setPeriodicBoxVectors(np.eye(3) * 2 * unit.nanometer)
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    system.addForce(force)
    return SimulationSystem("CO", system, topology, np.array([[0, 0, 0], [0.1, 0, 0], [0.05, 0, 0]]))


def write(path: Path, runs: list[tuple[float, int]], missing: int = 0, periodic: bool = True) -> None:
    """A directory as `label` leaves it; the last run lacks its last `missing` frames."""
    save_system(path, carbon_monoxide(periodic))
    entries = {trajectory_name(t, seed): {"temperature": t, "seed": seed, "frames": FRAMES} for t, seed in runs}
    meta = {"kind": LABELLED.name, "version": LABELLED.version, "trajectories": entries}
    (path / "meta.json").write_text(json.dumps(meta))
    for temperature, seed in runs:
        directory = path / "trajectories" / trajectory_name(temperature, seed)
        directory.mkdir(parents=True)
        with GrowingArray.open(directory / "frames.npy", frame_fields(3, periodic)) as frames:
            records = frames.empty_records(FRAMES - (missing if (temperature, seed) == runs[-1] else 0))
            records["step"] = 50 * np.arange(1, len(records) + 1)
            records["positions"] = seed
            records["forces"] = -seed
            records["potential_energy"] = temperature
            frames.append(records)


def test_trajectories_carry_what_was_written_as_read_only_maps(tmp_path: Path) -> None:
    write(tmp_path, [(150.0, 2), (100.0, 2), (100.0, 1)])
    data = LabelledTrajectories.open(tmp_path)
    assert [trajectory.name for trajectory in data.trajectories] == ["100K-seed-1", "100K-seed-2", "150K-seed-2"]
    assert data.seeds == [1, 2] and len(data) == 3
    second = data.trajectories[1]
    assert len(second) == FRAMES and second.complete
    assert second.positions.shape == second.forces.shape == second.records["velocities"].shape == (FRAMES, 3, 3)
    assert second.positions.dtype == np.float64 and second.forces.dtype == np.float32
    assert (second.positions == 2).all() and (second.forces == -2).all()
    assert (second.records["potential_energy"] == 100).all()
    assert isinstance(second.records, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second.positions[0] = 0


def test_the_topology_comes_with_elements_bonds_masses_and_virtual_sites(tmp_path: Path) -> None:
    write(tmp_path, [(100.0, 1)])
    data = LabelledTrajectories.open(tmp_path)
    assert [atom.element and atom.element.atomic_number for atom in data.topology.atoms()] == [6, 8, None]
    assert [(a.index, b.index) for a, b in data.topology.bonds()] == [(0, 1)]
    assert data.system.masses.tolist() == [12.0, 16.0, 0.0]
    assert data.topology.getNumAtoms() == 3


def test_a_split_deals_whole_trajectories_by_seed_at_every_temperature(tmp_path: Path) -> None:
    write(tmp_path, [(t, seed) for t in (100.0, 150.0) for seed in (1, 2, 3, 4)])
    split = LabelledTrajectories.open(tmp_path).split([1, 4], [2], [3])
    names = [[trajectory.name for trajectory in part] for part in (split.train, split.validation, split.test)]
    assert names == [
        ["100K-seed-1", "150K-seed-1", "100K-seed-4", "150K-seed-4"],
        ["100K-seed-2", "150K-seed-2"],
        ["100K-seed-3", "150K-seed-3"],
    ]


def test_a_seed_for_two_purposes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [(100.0, seed) for seed in (1, 2, 3)])
    data = LabelledTrajectories.open(tmp_path)
    for parts in (([1, 2], [2], [3]), ([1], [2], [1]), ([1, 1], [2], [3])):
        with pytest.raises(DataError, match="are given twice"):
            data.split(*parts)
    with pytest.raises(DataError, match=r"no trajectory of seed 9: it has seeds \[1, 2, 3\]"):
        data.split([1], [2], [9])
    with pytest.raises(DataError, match="no trajectory of seed 1 at 77 K"):
        data.select([1], temperature=77.0)


def test_an_unfinished_trajectory_is_readable_but_not_for_training(tmp_path: Path) -> None:
    write(tmp_path, [(100.0, 1), (100.0, 2)], missing=3)
    data = LabelledTrajectories.open(tmp_path)
    assert len(data.trajectories[1]) == FRAMES - 3 and not data.trajectories[1].complete
    assert len(data.split([1]).train) == 1
    with pytest.raises(DataError, match="has 5 of 8 frames: run the same .*label.* again"):
        data.split([1], [2])


def test_trajectories_not_begun_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, [(100.0, 1), (100.0, 2)])
    (tmp_path / "trajectories" / "100K-seed-2" / "frames.npy").unlink()
    assert LabelledTrajectories.open(tmp_path).seeds == [1]


def test_a_system_without_a_box_has_no_box_vectors(tmp_path: Path) -> None:
    write(tmp_path, [(100.0, 1)], periodic=False)
    (trajectory,) = LabelledTrajectories.open(tmp_path).trajectories
    assert trajectory.positions.shape == (FRAMES, 3, 3)
    with pytest.raises(DataError, match="without periodic boundaries"):
        _ = trajectory.box_vectors


def test_a_damaged_frame_is_found(tmp_path: Path) -> None:
    write(tmp_path, [(100.0, 1)])
    (trajectory,) = LabelledTrajectories.open(tmp_path).trajectories
    trajectory.verify()
    content = bytearray(trajectory.frames_file.read_bytes())
    content[-100] ^= 4
    trajectory.frames_file.write_bytes(content)
    with pytest.raises(DataError, match="1 of 8 records .* the first is 7"):
        trajectory.verify()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no meta.json"),
        ("{", "is damaged .* copy the directory again, or make it anew"),
        ('{"kind": "something else"}', "of kind 'something else'"),
        (
            json.dumps({"kind": LABELLED.name, "version": LABELLED.version + 1}),
            f"version {LABELLED.version + 1}: expected",
        ),
        ("[]", "is damaged .it holds a list.: copy the directory again"),
    ],
)
def test_other_directories_are_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "meta.json").write_text(content)
    with pytest.raises(DataError, match=message):
        LabelledTrajectories.open(tmp_path)
