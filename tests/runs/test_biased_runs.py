"""Biased runs: their records, restarts after kills to the last bit, what they refuse, and their free energies."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from command_lines import invoke
from killed_processes import KilledCalls
from learned_cvs import chain, untrained_cv, values_of
from openmm import app

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError, TopologyError
from openmm_gnn.base.files import read_checkpoint
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.features.learned_cv import Slowness, load_learned_cv, save_learned_cv
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.cv_force import BiasForce
from openmm_gnn.kinetics.free_energy import (
    Reweighting,
    effective_frames,
    final_bias,
    frame_log_weights,
    reweighted_free_energy,
)
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.runs.bias.least_widths import MARGIN, START_FACTOR
from openmm_gnn.runs.bias.opes import OpesBias
from openmm_gnn.runs.bias.records import read_bias_meta, read_bias_records, read_hills
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.settings import WALL_KJ_MOL, BiasMethod, BiasSettings, BiasWalls, FeatureSettings
from openmm_gnn.runs.simulate import simulate

SETTINGS = RunCourse(
    steps=120,
    equilibration_steps=20,
    report_interval=20,
    checkpoint_interval=40,
    time_step_ps=0.001,
    temperature=300.0,
    thermostat=Thermostat.LANGEVIN,
    friction_per_ps=1.0,
    seed=1,
)
OPES = BiasSettings(stride=15, barrier=15.0)
METAD = BiasSettings(BiasMethod.METAD, stride=15, height=2.0)
KT = BOLTZMANN_KJ_MOL_K * 300.0


@pytest.fixture(scope="module")
def cv_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_learned_cv(untrained_cv(chain()), tmp_path_factory.mktemp("cv") / "cv.safetensors")


def run(path: Path, cv: Path, settings: RunCourse, bias: BiasSettings, **more: Any) -> Path:
    simulate(
        chain(),
        path,
        settings,
        bias_cv=cv,
        bias=bias,
        **{"compute": ComputeSettings("Reference"), **more},
    )
    return path


@pytest.mark.parametrize("bias", [OPES, METAD, replace(METAD, interval=2)], ids=["opes", "metad", "impulses"])
def test_records_are_of_the_frames_and_rebuild_the_bias(tmp_path: Path, cv_path: Path, bias: BiasSettings) -> None:
    path = run(tmp_path / "run", cv_path, SETTINGS, bias)
    records, meta = read_bias_records(path), read_bias_meta(path)
    assert records["step"].tolist() == list(range(1, 121))
    assert records["step"][np.isfinite(records["height"])].tolist() == list(range(15, 121, 15))
    positions, _ = RunDirectory(path).read_positions()
    cv = untrained_cv(chain())
    of_frames = records[np.isin(records["step"], range(20, 121, 20))]
    found = [values_of(cv, chain(), frame, None) for frame in positions]
    np.testing.assert_allclose(of_frames["values"], found, atol=1e-3)  # the trajectory has float32 positions
    rebuilt = final_bias(meta, records[:0])
    for record in records:
        assert rebuilt.value_and_gradient(record["values"])[0] == record["bias"]
        assert rebuilt.offset() == record["offset"]
        rebuilt.widen(record["least"])
        if np.isfinite(record["height"]):
            height, widths = rebuilt.deposit(record["values"])
            assert height == record["height"]
            np.testing.assert_array_equal(widths, record["widths"])


def test_weights_are_those_of_the_bias_of_each_moment_or_the_end(tmp_path: Path, cv_path: Path) -> None:
    path = run(tmp_path / "run", cv_path, SETTINGS, METAD)
    records = read_bias_records(path)
    chosen = records[np.isin(records["step"], range(20, 121, 20))]
    moment = (chosen["bias"] + chosen["wall"] - chosen["offset"]) / KT
    np.testing.assert_allclose(frame_log_weights(path), moment, atol=1e-12)
    final = final_bias(read_bias_meta(path), read_hills(path)).energies(chosen["values"])
    np.testing.assert_allclose(
        frame_log_weights(path, reweighting=Reweighting.FINAL), (final + chosen["wall"]) / KT, atol=1e-12
    )
    np.testing.assert_allclose(frame_log_weights(path, np.array([40, 120])), moment[[1, 5]], atol=1e-12)
    with pytest.raises(DataError, match="no record of the bias at step 130"):
        frame_log_weights(path, np.array([40, 130]))
    with pytest.raises(DataError, match="holds no meta.json: give a directory written by `openmm-gnn simulate --bias`"):
        frame_log_weights(tmp_path)
    assert effective_frames(np.zeros(8)) == pytest.approx(8.0)
    assert effective_frames(np.array([0.0, -100.0])) == pytest.approx(1.0)


@pytest.mark.parametrize("bias", [OPES, replace(METAD, interval=3)], ids=["opes", "impulses"])
def test_a_resumed_run_is_that_of_one_never_stopped(tmp_path: Path, cv_path: Path, bias: BiasSettings) -> None:
    features = FeatureSettings("peptide-et", stride=10, dtype="float32")
    whole = run(tmp_path / "whole", cv_path, replace(SETTINGS, steps=200), bias, features=features)
    path = run(tmp_path / "run", cv_path, SETTINGS, bias, features=features)
    checkpoint = RunDirectory(path).checkpoint.read_bytes()
    run(path, cv_path, replace(SETTINGS, steps=160), bias, features=features)
    RunDirectory(path).checkpoint.write_bytes(checkpoint)  # as after a kill: records lie past the checkpoint
    run(path, cv_path, replace(SETTINGS, steps=200), bias, features=features)
    assert_same_records(path, whole)
    assert RunDirectory(path).trajectory.read_bytes() == RunDirectory(whole).trajectory.read_bytes()
    store = EmbeddingStore.open(path / "features")
    assert store.steps.tolist() == list(range(10, 201, 10))
    assert len(frame_log_weights(path, store.steps)) == 20


def assert_same_records(one: Path, other: Path) -> None:
    first, second = read_bias_records(one), read_bias_records(other)
    assert len(first) > 5
    for name in first.dtype.names or ():
        np.testing.assert_array_equal(first[name], second[name])  # to the last bit; NaN is equal to NaN here


ENDLESS = replace(SETTINGS, steps=100_000_000)


def test_killed_runs_have_the_hills_of_one_never_killed(tmp_path: Path, cv_path: Path) -> None:
    killed, rng = RunDirectory(tmp_path / "killed"), random.Random(5)
    with KilledCalls(run, killed.path, cv_path, ENDLESS, OPES) as calls:
        for _ in range(3):
            calls.kill_one(rng.uniform(0, 0.5), killed.checkpoint)
            assert len(read_bias_records(killed.path)) > 0  # readable, checksums good
    checkpoint = read_checkpoint(killed.checkpoint)
    assert checkpoint is not None
    ending = replace(ENDLESS, steps=checkpoint.step - ENDLESS.equilibration_steps + 40)
    run(killed.path, cv_path, ending, OPES)
    whole = run(tmp_path / "whole", cv_path, ending, OPES)
    assert_same_records(killed.path, whole)
    assert killed.trajectory.read_bytes() == RunDirectory(whole).trajectory.read_bytes()


@pytest.mark.parametrize("backend", available_backends())
def test_the_logged_energy_is_without_the_bias(tmp_path: Path, cv_path: Path, backend: Any) -> None:
    path = run(tmp_path / "run", cv_path, SETTINGS, OPES, compute=ComputeSettings("Reference", backend.value))
    positions, _ = RunDirectory(path).read_positions()
    context = openmm.Context(copy.deepcopy(chain().system), openmm.VerletIntegrator(0.001))
    for frame, row in zip(positions, RunDirectory(path).read_log(), strict=True):
        context.setPositions(frame)
        energy = context.getState(energy=True).getPotentialEnergy()._value
        assert row["potential_kj_mol"] == pytest.approx(energy, abs=0.02)


def test_a_bias_that_tears_the_molecule_apart_is_named_with_its_variable(tmp_path: Path, cv_path: Path) -> None:
    steep = replace(METAD, stride=2, height=1e14, outputs=(0,), width=(1e-3,), stiffness=1e12)
    with pytest.raises(
        NonFiniteError, match=r"bias along cv\.safetensors was too steep; at \[.*\] it pushed an atom with \S+e\+\d+ kJ"
    ):
        run(tmp_path / "run", cv_path, SETTINGS, steep)
    assert len(read_bias_records(tmp_path / "run")) > 0


def test_another_bias_is_refused_on_resuming_and_named(tmp_path: Path, cv_path: Path) -> None:
    path = run(tmp_path / "run", cv_path, SETTINGS, OPES)
    with pytest.raises(SpecError, match=r"bias.barrier_kj_mol: 15.0 stored, 20.0 given"):
        run(path, cv_path, SETTINGS, replace(OPES, barrier=20.0))
    with pytest.raises(SpecError, match=r"bias.method: 'opes' stored, None given"):
        simulate(chain(), path, SETTINGS, compute=ComputeSettings("Reference"))


def test_a_cv_of_another_topology_leaves_no_run_behind(tmp_path: Path, cv_path: Path) -> None:
    with pytest.raises(TopologyError, match="learned for another topology"):
        simulate(chain(8), tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference"), bias_cv=cv_path)
    assert not (tmp_path / "run" / "run.json").exists()


def test_multiple_time_steps_and_impulses_without_langevin_are_refused(tmp_path: Path, cv_path: Path) -> None:
    with pytest.raises(SpecError, match="2 bonded substeps"):
        run(tmp_path / "run", cv_path, replace(SETTINGS, bonded_substeps=2), OPES)
    hoover = replace(SETTINGS, thermostat=Thermostat.NOSE_HOOVER)
    with pytest.raises(SpecError, match="need langevin"):
        run(tmp_path / "run", cv_path, hoover, replace(OPES, interval=2))


DIMER_BARRIER = 8.0


def dimer_energy(distance: Any) -> Any:
    """A double well, 0.25 and 0.45 nm."""
    return DIMER_BARRIER * (((distance - 0.35) / 0.1) ** 2 - 1) ** 2


def dimer() -> SimulationSystem:
    """Two carbons in a double well of their distance."""
    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("DIM", topology.addChain())
    atoms = [topology.addAtom(name, app.element.carbon, residue) for name in ("C1", "C2")]
    topology.addBond(*atoms)
    for _ in atoms:
        system.addParticle(12.0)
    force = openmm.CustomBondForce(f"{DIMER_BARRIER}*(((r-0.35)/0.1)^2-1)^2")
    force.addBond(0, 1)
    system.addForce(force)
    positions = np.array([[0.0, 0.0, 0.0], [0.25, 0.0, 0.0]])
    return SimulationSystem("dimer", system, topology, positions, temperature=300.0)


@pytest.mark.slow
def test_the_free_energy_of_a_biased_dimer_is_the_known_one(tmp_path: Path) -> None:
    samples = np.zeros((200, 2, 3))
    samples[:, 1, 0] = np.linspace(0.22, 0.5, 200)
    cv = untrained_cv(dimer(), 16, samples, target=samples[:, 1, 0])
    path = save_learned_cv(cv, tmp_path / "cv.safetensors")
    settings = replace(
        SETTINGS, steps=5000, report_interval=10, checkpoint_interval=2500, time_step_ps=0.005, friction_per_ps=5.0
    )
    bias = BiasSettings(stride=25, barrier=10.0)
    simulate(dimer(), tmp_path / "run", settings, compute=ComputeSettings("Reference"), bias_cv=path, bias=bias)
    positions, _ = RunDirectory(tmp_path / "run").read_positions()
    distance = np.linalg.norm(positions[:, 0] - positions[:, 1], axis=1)
    line = reweighted_free_energy(tmp_path / "run", distance, bins=12)
    truth = dimer_energy(line.centers) - 2 * KT * np.log(line.centers)  # the volume of a shell grows with its radius
    populated = np.isfinite(line.values) & (truth < truth.min() + 7)
    assert populated.sum() >= 6
    difference = (line.values - truth)[populated]
    assert np.abs(difference - difference.mean()).max() < 2.5


def test_the_command_biases(tmp_path: Path) -> None:
    from openmm_gnn.md.systems.systems import load_system

    system = load_system("alanine-dipeptide")
    cv = save_learned_cv(untrained_cv(system), tmp_path / "cv.safetensors")
    options = ["--steps", "20", "--stride", "10", "--equilibration", "0", "--platform", "Reference", "--quiet"]
    biased = ["--bias", str(cv), "--bias-method", "metad", "--bias-outputs", "1", "--bias-width", "0.3"]
    done = invoke(
        ["simulate", "alanine-dipeptide", *options, *biased, "--bias-stride", "5", "--out", str(tmp_path / "run")],
    )
    assert done.exit_code == 0, done.output
    records = read_bias_records(tmp_path / "run")
    assert records["step"].tolist() == list(range(1, 21))
    meta = json.loads((tmp_path / "run" / "bias" / "meta.json").read_text())
    assert (meta["outputs"], meta["widths"]) == ([1], [0.3])
    wrong = invoke(["simulate", "chignolin", *options, *biased, "--out", str(tmp_path / "other")])
    assert isinstance(wrong.exception, TopologyError)


def first_steepness(cv: Path) -> np.ndarray:
    """(D,) steepness of the CV at the start of the chain."""
    start, learned = chain(), load_learned_cv(cv)
    inverse = 1 / np.array([start.system.getParticleMass(atom)._value for atom in range(len(start.positions))])
    force = BiasForce(learned, start.topology, OpesBias(np.ones(learned.num_outputs), 15.0, 300.0))
    return force.steepness(start.positions, start.box_vectors, inverse)


def prepared_for(steepness: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(samples, D) the steepness that kernels and walls bear after each sample."""
    steepest, found = START_FACTOR * first, []
    for sample in steepness:
        steepest = np.where(sample > steepest, MARGIN * sample, steepest)
        found.append(steepest)
    return np.array(found)


@pytest.mark.parametrize("bias", [OPES, METAD], ids=["opes", "metad"])
def test_kernels_are_as_wide_as_the_steepness_along_the_run_asks(
    tmp_path: Path, cv_path: Path, bias: BiasSettings
) -> None:
    """At a hundredth of the stiffness all widths are the least ones; meta.json and records hold what they come from."""
    soft = replace(bias, stiffness=0.01)
    records = read_bias_records(run(tmp_path / "run", cv_path, SETTINGS, soft))
    depth = soft.barrier if bias is OPES else 10 * KT
    assert read_bias_meta(tmp_path / "run")["settings"]["stiffness"] == 0.01
    steepest = prepared_for(records["steepness"], first_steepness(cv_path))
    least = SETTINGS.time_step_ps * np.sqrt(depth / 2) / 0.01 * steepest
    np.testing.assert_allclose(records["least"], least, rtol=1e-6)
    added = np.isfinite(records["height"])
    np.testing.assert_array_equal(records["widths"][added], records["least"][added])
    assert np.isnan(records["widths"][np.isnan(records["height"])]).all()


def test_walls_are_as_soft_as_the_steepest_place_so_far_asks(tmp_path: Path, cv_path: Path) -> None:
    """Walls of a CV whose range is a thousandth of its deviation."""
    cv = load_learned_cv(cv_path)
    ends = np.array(cv.ranges.mean) + np.array([[-5e-4], [5e-4]]) * np.array(cv.ranges.std)
    low, high = (tuple(end.tolist()) for end in ends)
    path = save_learned_cv(
        replace(cv, ranges=replace(cv.ranges, minimum=low, maximum=high)), tmp_path / "cv.safetensors"
    )
    records = read_bias_records(run(tmp_path / "run", path, SETTINGS, OPES))
    assert (records["wall"] > 0).all()
    first = first_steepness(path)
    before = np.vstack([START_FACTOR * first, prepared_for(records["steepness"], first)[:-1]])
    for record, steepest in zip(records, before, strict=True):
        least = SETTINGS.time_step_ps * np.sqrt(2 * WALL_KJ_MOL) * steepest
        walls = BiasWalls.around(ends[0], ends[1], OPES.margin).reaching(least)
        assert record["wall"] == pytest.approx(walls.value_and_gradient(record["values"])[0], rel=1e-6)


def test_outputs_that_are_not_slow_in_held_out_frames_are_left_out_or_refused(tmp_path: Path, cv_path: Path) -> None:
    cv = load_learned_cv(cv_path)
    assert BiasSettings().chosen_outputs(cv) == tuple(range(cv.num_outputs))  # nobody has looked
    correlations = (0.9, *[0.1] * (cv.num_outputs - 1))
    path = save_learned_cv(replace(cv, slowness=Slowness(1.0, 80, correlations)), tmp_path / "cv.safetensors")
    looked = load_learned_cv(path)
    assert looked.slowness == Slowness(1.0, 80, correlations)
    assert BiasSettings().chosen_outputs(looked) == (0,)
    with pytest.warns(UserWarning, match=r"output 1, counted from 0, is not slow.*: the bias leaves it out"):
        made = run(tmp_path / "first", path, replace(SETTINGS, steps=20), OPES)
    assert read_bias_meta(made)["outputs"] == [0] and read_bias_records(made)["values"].shape[1] == 1
    with pytest.raises(SpecError, match=r"bias.outputs: \[0\] stored"):
        run(made, path, replace(SETTINGS, steps=40), replace(OPES, allow_few_data=True))
    assert BiasSettings(outputs=(1,), allow_few_data=True).chosen_outputs(looked) == (1,)
    words = r"output 1, counted from 0, is not slow.*0\.10 there, over 80 pairs.*slow \(\[0\]\).*--bias-allow-few-data"
    with pytest.raises(SpecError, match=words):
        run(tmp_path / "run", path, SETTINGS, replace(OPES, outputs=(0, 1)))
    assert not (tmp_path / "run" / "run.json").exists()
    none = replace(cv, slowness=Slowness(1.0, 80, (0.2,) * cv.num_outputs))
    with pytest.raises(SpecError, match=r"output 0.*\(none is\)"):
        BiasSettings().chosen_outputs(none)
    assert BiasSettings(allow_few_data=True).chosen_outputs(none) == tuple(range(cv.num_outputs))
    with pytest.raises(SpecError, match="1 correlations for"):
        replace(cv, slowness=Slowness(1.0, 80, (0.2,)))
