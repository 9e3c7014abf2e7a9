"""The error of an accelerated run's network beside a sum by hand, what is said of it, and labels to train on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from command_lines import invoke
from killed_processes import KilledCalls
from slow_water import SETTINGS, flexible_water, network
from small_teachers import HERE, SMALL, TINY, distill_tiny, peptide_in_vacuum

from openmm_gnn import accelerate, load_system
from openmm_gnn.analysis.distillation.distill import distill
from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.units import MEV_PER_ANGSTROM_PER_KJ_MOL_NM
from openmm_gnn.data.labels.trajectories import LabelledTrajectories
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.md.run_settings import ComputeSettings
from openmm_gnn.md.simulation_system import NONBONDED_GROUP, split_groups
from openmm_gnn.networks.weights import load_model, save_network
from openmm_gnn.runs.directory import ERROR_COLUMN
from openmm_gnn.runs.network_watch import WATCHED_FRAMES
from openmm_gnn.runs.simulate import simulate

REFERENCE = ComputeSettings("Reference")


def teacher_forces(positions: np.ndarray) -> np.ndarray:
    """Non-bonded forces of the water at each frame, by the Reference platform."""
    start = flexible_water()
    split_groups(start.system)
    context = openmm.Context(
        start.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    forces = []
    for frame in positions:
        context.setPositions(frame)
        forces.append(context.getState(forces=True, groups={NONBONDED_GROUP}).getForces(asNumpy=True)._value)
    return np.array(forces)


def test_the_log_has_the_error_of_the_network_and_labels_are_the_teachers_forces(tmp_path: Path) -> None:
    start, model = flexible_water(), network()
    result = simulate(start, tmp_path, SETTINGS, model, compute=REFERENCE, relearn=True)
    data = LabelledTrajectories.open(tmp_path / "labels")
    (trajectory,) = data.select([SETTINGS.seed])
    expected = teacher_forces(trajectory.positions)
    np.testing.assert_allclose(trajectory.forces, expected, atol=2e-7 * np.abs(expected).max())  # stored as float32
    module, box = script_module(model, start.topology), torch.tensor(np.array(start.box_vectors))
    predicted = np.array([module(torch.tensor(frame), box)[1].numpy() for frame in np.array(trajectory.positions)])
    errors = MEV_PER_ANGSTROM_PER_KJ_MOL_NM * (predicted - expected)
    by_hand = np.sqrt(np.square(errors).mean(axis=(1, 2)))
    np.testing.assert_allclose(result.directory.read_log()[ERROR_COLUMN], by_hand, rtol=1e-5)  # a float32 network
    assert result.network_error == pytest.approx(np.sqrt(np.square(by_hand).mean()), rel=1e-5)
    assert data.meta["settings"]["forces"] == "nonbonded" and len(trajectory) == SETTINGS.num_frames


def test_a_context_tells_the_errors_of_the_few_atoms_that_the_network_sees() -> None:
    start = flexible_water()
    accelerated = accelerate(
        start.system, start.topology, network(), 2, 0.002, 2, expensive=["NonbondedForce"], atoms=range(9)
    )
    context = openmm.Context(accelerated.system, accelerated.integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.positions)
    expensive, errors = accelerated.network_errors(context)
    own = context.getState(forces=True, groups=set(accelerated.levels["network"])).getForces(asNumpy=True)._value
    np.testing.assert_allclose(expensive, teacher_forces(start.positions[None])[0], atol=1e-9 * np.abs(expensive).max())
    np.testing.assert_allclose(errors, own[:9] - expensive[:9], atol=1e-9 * np.abs(expensive).max())
    assert np.all(own[9:] == 0) and np.any(own[:9] != 0)


@pytest.mark.parametrize(("held_out", "warned"), [(1.0, True), (1e9, False), (None, False)])
def test_a_network_that_leaves_its_data_is_named_once(tmp_path: Path, held_out: float | None, warned: bool) -> None:
    known = {} if held_out is None else {"held_out": {"rmse": held_out}}
    model = network()
    model.spec = replace(model.spec, metadata={**model.spec.metadata, **known})
    asked = replace(SETTINGS, steps=20, report_interval=1, checkpoint_interval=20, equilibration_steps=0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = simulate(flexible_water(), tmp_path, asked, model, compute=REFERENCE)
    words = [str(one.message) for one in said if "were off by" in str(one.message)]
    assert len(words) == warned and result.held_out_error == held_out
    if warned:
        assert words[0].startswith(f"step {WATCHED_FRAMES}: ") and "of HOH" in words[0] and "--relearn" in words[0]


def labelled_run(out: Path) -> None:
    longer = replace(SETTINGS, steps=100)
    simulate(flexible_water(), out, longer, network(), compute=REFERENCE, relearn=True)


@pytest.mark.slow
def test_a_killed_run_has_the_labels_of_one_never_killed(tmp_path: Path) -> None:
    with KilledCalls(labelled_run, tmp_path / "killed") as calls:
        calls.kill_one(0.0, tmp_path / "killed" / "labels" / "trajectories" / "300K-seed-1" / "frames.npy", 15_000)
    begun = LabelledTrajectories.open(tmp_path / "killed" / "labels")
    assert all(0 < len(trajectory) < 20 for trajectory in begun.select(begun.seeds))  # whole, wherever it stopped
    labelled_run(tmp_path / "killed")
    labelled_run(tmp_path / "whole")
    killed, whole = (
        LabelledTrajectories.open(tmp_path / name / "labels").select([1])[0] for name in ("killed", "whole")
    )
    assert len(whole) == 20
    assert (killed.records["step"] == whole.records["step"]).all()
    for field in ("positions", "forces"):  # a restart sums forces in another order
        found, expected = killed.records[field], whole.records[field]
        assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


def test_labels_of_a_part_are_refused_and_so_are_those_of_a_plain_run(tmp_path: Path) -> None:
    part = replace(SETTINGS, expensive=("NonbondedForce",), network_atoms="resid 0 to 2")
    for settings, model, message in (
        (part, network(), "label the geometries of the run"),
        (replace(SETTINGS, inner_steps=0), None, "not accelerated"),
    ):
        with pytest.raises(SpecError, match=message):
            simulate(flexible_water(), tmp_path / "run", settings, model, compute=REFERENCE, relearn=True)
    refused = invoke(["simulate", "argon", "--out", str(tmp_path / "no"), "--steps", "50", "--relearn"])
    assert refused.exit_code == 2 and "it is for accelerated runs" in refused.stderr


@pytest.mark.slow
def test_a_distillation_learns_from_the_runs_of_its_student(tmp_path: Path) -> None:
    """By the command that it prints, with --relearn; the teacher is not evaluated again."""
    out, run, other_run = (tmp_path / name for name in ("distilled", "run", "other-run"))
    distill_tiny(out)
    command = ["simulate", str(out), "--model", str(out), "--accelerate", "--relearn", "--platform", "CPU", "--quiet"]
    command += ["--steps", "40", "--stride", "2", "--equilibration", "0", "--time-step", "1", "--inner-steps", "2"]
    assert invoke([*command, "--seed", "2", "--out", str(other_run)]).exit_code == 0
    result = invoke([*command, "--out", str(run)])
    assert result.exit_code == 0 and "The network's forces were off by" in result.output, result.output
    before = (out / "labels.npy").read_bytes()
    lines: list[str] = []
    found = distill(peptide_in_vacuum(), out, TINY, SMALL, HERE, runs=[run], say=lines.append)
    assert (out / "labels.npy").read_bytes() == before
    assert any(line.startswith("20 frames of ") for line in lines)
    last, rounds = found.distilled.rounds[-1], found.distilled.rounds[:-1]
    assert last.num_frames + last.num_held_out == rounds[-1].num_frames + rounds[-1].num_held_out + 20
    best = min(rounds, key=lambda one: one.error)
    assert last.error_before is not None  # of `best`, on the frames that are held out now
    chosen = load_model(out / "rounds" / (last if last.error <= last.error_before else best).name / "network")
    values = load_model(out).state_dict()
    assert all(torch.equal(values[name], value) for name, value in chosen.state_dict().items())
    again = distill(peptide_in_vacuum(), out, TINY, SMALL, HERE, runs=[other_run]).distilled.rounds[-1]
    assert again.num_frames == last.num_frames and again.errors != last.errors  # as many frames, but others
    with pytest.raises(DataError, match="has no labels"):
        distill(peptide_in_vacuum(), out, TINY, SMALL, HERE, runs=[out])
    model = save_network(network().float(), tmp_path / "other.safetensors")
    simulate(flexible_water(), tmp_path / "other", SETTINGS, load_model(model), compute=REFERENCE, relearn=True)
    with pytest.raises(DataError, match="another System"):
        distill(peptide_in_vacuum(), out, TINY, SMALL, HERE, runs=[tmp_path / "other"])
    assert load_system(out).name
