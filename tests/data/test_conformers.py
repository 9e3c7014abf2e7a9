"""Conformations for pretraining: peptides that are what they are called, runs that repeat, damage that is named."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import locked
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.conformers.conformers import make_conformations
from openmm_gnn.data.conformers.settings import PeptideSettings
from openmm_gnn.md.implicit_solvent import with_compiled_solvent
from openmm_gnn.md.systems.peptides import HELD_OUT, RESIDUE_NAMES, Peptide, build_peptide, is_held_out, random_peptides

TINY = PeptideSettings(longest=3, temperatures=(400.0, 300.0), frames=2, interval_ps=0.1)


def one_after_another(count: int, longest: int = 8) -> list[Peptide]:
    return list(itertools.islice(random_peptides(1, longest, seed=3), count))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Conformations:
    return make_conformations(tmp_path_factory.mktemp("peptides"), 6, TINY, processes=1, progress=False)


def test_peptides_repeat_for_a_seed_and_no_sequence_comes_twice() -> None:
    peptides = one_after_another(400)
    assert peptides[:50] == one_after_another(50)
    assert len({peptide.sequence for peptide in peptides}) == 400
    assert set("".join(peptide.sequence for peptide in peptides)) == set(RESIDUE_NAMES)
    assert {len(peptide.sequence) for peptide in peptides} == set(range(1, 9))
    assert {(p.acetylated, p.methylated) for p in peptides} == set(itertools.product((True, False), repeat=2))


def test_benchmarks_are_left_out() -> None:
    for sequences in HELD_OUT.values():
        assert all(is_held_out(sequence) for sequence in sequences.split())
    assert is_held_out("GGDEDFGG")  # four residues of villin
    assert not is_held_out("GGDED")
    assert not any(is_held_out(peptide.sequence) for peptide in one_after_another(400))


def test_more_peptides_than_there_are_is_said() -> None:
    with pytest.raises(SpecError, match="after 20 molecules hardly another of 1 to 1 residues"):
        list(itertools.islice(random_peptides(1, 1, seed=0), 20))
    with pytest.raises(SpecError, match="3 to 2 residues"):
        next(random_peptides(3, 2, seed=0))
    with pytest.raises(SpecError, match="sequence is 'AXB'"):
        Peptide("AXB")


@pytest.mark.parametrize("letter", sorted(RESIDUE_NAMES))
def test_a_residue_is_built_with_its_bonds_and_its_handedness(letter: str) -> None:
    topology, positions = build_peptide(Peptide("G" + letter), np.random.default_rng(1))
    positions = 10 * positions
    for first, second in topology.bonds():
        length = np.linalg.norm(positions[first.index] - positions[second.index])
        assert 1.2 < length < (1.9 if "S" in first.name + second.name or letter == "P" else 1.56), (first, second)
    atoms = {atom.name: positions[atom.index] for atom in list(topology.residues())[2].atoms()}
    names = [atom.name for atom in list(topology.residues())[2].atoms()]
    # The force field brings its own list of the heavy atoms of each residue.
    template = app.ForceField("amber14-all.xml")._templates[RESIDUE_NAMES[letter] if letter != "H" else "HID"]
    assert sorted(names) == sorted(atom.name for atom in template.atoms if atom.element.symbol != "H")
    if letter != "G":
        assert handedness(atoms, "CA", "N", "C", "CB") > 1  # L
    if letter == "I":
        assert handedness(atoms, "CB", "CA", "CG1", "CG2") > 1  # 2S, 3S
    if letter == "T":
        assert handedness(atoms, "CB", "CA", "OG1", "CG2") > 1  # 2S, 3R


def handedness(atoms: dict[str, np.ndarray], center: str, *others: str) -> float:
    return float(np.linalg.det(np.stack([atoms[name] - atoms[center] for name in others])))


def test_the_compiled_solvent_is_the_force_fields() -> None:
    topology, positions = build_peptide(Peptide("KDWC"), np.random.default_rng(2))
    modeller = app.Modeller(topology, positions * unit.nanometer)
    modeller.addHydrogens(platform=openmm.Platform.getPlatformByName("Reference"))
    found = []
    for compiled in (False, True):
        system = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(modeller.topology)
        if compiled:
            with_compiled_solvent(system)
        assert any(isinstance(force, openmm.GBSAOBCForce) for force in system.getForces()) is compiled
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(modeller.positions)
        state = context.getState(getEnergy=True, getForces=True)
        found.append((state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value))
    assert found[1][0] == pytest.approx(found[0][0], abs=0.1)  # kJ/mol, of thousands
    np.testing.assert_allclose(found[1][1], found[0][1], atol=0.1)


def test_frames_are_molecules_at_their_temperatures(data: Conformations) -> None:
    data.verify()
    assert len(data.molecules) == 6 and data.num_frames == 24
    assert data.meta["left_out"]["villin"].startswith("MLSDEDF")
    for molecule in data.molecules:
        assert molecule.temperatures.tolist() == [400, 400, 300, 300]
        assert molecule.positions.dtype == np.float32
        heavy = molecule.atomic_numbers != 1
        distances = np.linalg.norm(molecule.positions[:, :, None] - molecule.positions[:, None], axis=-1)
        nearest = np.sort(distances[:, heavy][:, :, heavy], axis=2)[:, :, 1]
        assert (nearest > 0.11).all() and (nearest < 0.20).all()  # a bond of every heavy atom
        assert np.abs(molecule.positions[0] - molecule.positions[-1]).max() > 0.01
    assert data.molecules.elements()[:4] == (1, 6, 7, 8)


def test_held_out_molecules_have_other_sequences(data: Conformations) -> None:
    training, validation = data.split(3)
    assert len(validation) == 2
    assert {m.sequence for m in training} & {m.sequence for m in validation} == set()
    with pytest.raises(DataError, match="leave 0 for training|for validation: both need some"):
        data.split(7)


def contents(data: Conformations) -> list[tuple[str, str, str, bytes, bytes]]:
    """All that is kept of each molecule, however they are cut into shards."""
    return [(m.name, m.sequence, m.sha256, m.positions.tobytes(), m.temperatures.tobytes()) for m in data.molecules]


def test_a_run_killed_at_any_moment_makes_the_same_frames_in_the_end(data: Conformations, tmp_path: Path) -> None:
    program = (
        "from test_conformers import TINY; from openmm_gnn.data.conformers.conformers import make_conformations;"
        f"make_conformations({str(tmp_path / 'killed')!r}, 6, TINY, processes=2, progress=False)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if list((tmp_path / "killed").glob("shards/[0-9]*/shard.json")):
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # its workers leave with it
    with pytest.raises(DataError, match="of 6 molecules: give the same `openmm-gnn conformers` command again"):
        Conformations.open(tmp_path / "killed")
    again = make_conformations(tmp_path / "killed", 6, TINY, processes=1, progress=False)
    assert len(again.molecules.shards) == 2 and len(data.molecules.shards) == 1
    assert contents(again) == contents(data)
    assert again.sha256 == data.sha256


def test_more_molecules_can_be_added_and_lost_ones_made_again(
    data: Conformations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/openmm-gnn", "conformers"])
    few = make_conformations(tmp_path, 1, TINY, progress=False)
    assert [molecule.name for molecule in few.molecules] == [data.molecules[0].name]
    more = make_conformations(tmp_path, 3, TINY, processes=2, progress=False)
    assert contents(more) == contents(data)[:3] and more.meta["commands"] == ["openmm-gnn conformers"]
    shutil.rmtree(more.molecules[1].shard.path)
    with pytest.raises(DataError, match=r"has 2 of 3 molecules: give the same `openmm-gnn conformers` command again"):
        Conformations.open(tmp_path)
    assert contents(make_conformations(tmp_path, 1, TINY, progress=False)) == contents(data)[:3]


def test_other_settings_are_named(data: Conformations, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"made with seed = 1, now it is 2"):
        make_conformations(data.path, 6, PeptideSettings(**{**vars(TINY), "seed": 2}), progress=False)
    with locked(data.path), pytest.raises(DataError, match="another process is writing into"):
        make_conformations(data.path, 6, TINY, progress=False)
    with pytest.raises(SpecError, match=r"time_step is 0.0: give a finite number above 0"):
        PeptideSettings(time_step=0.0)
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(DataError, match="thesis"):
        make_conformations(tmp_path, 1, TINY, progress=False)
