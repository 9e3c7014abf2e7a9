"""The reporter in real simulations: OpenMM's own reports, restarts, slow and broken workers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app
from small_simulations import DistanceFeaturizer, argon_simulation, save_checkpoint
from warm_python import run_python
from whole_runs import SCRIPT, assert_same_frames, run_to

from openmm_gnn.base.errors import DataError, NonFiniteError, OpenMMGNNError, SpecError
from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter
from openmm_gnn.reporters.embedding_store import EmbeddingStore

WORKERS = (None, "thread", "process")


class PositionsKeeper:
    """Another reporter, of the old form that returns a tuple."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.steps: list[int] = []
        self.positions: list[np.ndarray] = []

    def describeNextReport(self, simulation: app.Simulation) -> tuple:
        return (self.interval - simulation.currentStep % self.interval, True, False, False, False, False)

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        self.steps.append(simulation.currentStep)
        self.positions.append(state.getPositions(asNumpy=True)._value.copy())


@pytest.mark.parametrize("worker", WORKERS)
def test_stored_features_are_those_of_the_positions_openmm_reports(tmp_path: Path, worker: str | None) -> None:
    simulation, keeper, featurizer = argon_simulation(), PositionsKeeper(10), DistanceFeaturizer()
    with EmbeddingReporter(str(tmp_path), 10, featurizer, dtype="float32", worker=worker) as reporter:
        simulation.reporters += [reporter, keeper]
        simulation.minimizeEnergy(maxIterations=5)
        simulation.step(95)
    store = EmbeddingStore.open(tmp_path)
    assert store.steps.tolist() == keeper.steps == list(range(10, 100, 10))
    assert store.times_ps == pytest.approx(store.steps * 0.002)
    assert np.array_equal(store.embeddings, np.stack([featurizer.features(kept) for kept in keeper.positions]))
    assert np.array_equal(store.coordinates, np.stack(keeper.positions)[:, :4].astype(np.float32))
    assert store.boxes[3] == pytest.approx(np.eye(3) * 1.6)
    assert len(store.verify()) == 0
    assert store.is_closed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npy", "meta.json"]
    assert store.meta["system"]["report_interval"] == 10
    assert store.meta["system"]["platform"] == "Reference"


def test_positions_are_unwrapped_unless_the_user_says_so(tmp_path: Path) -> None:
    for name, wrapped in (("free", None), ("wrapped", True)):
        simulation = argon_simulation(temperature=3000.0)
        with EmbeddingReporter(tmp_path / name, 20, DistanceFeaturizer(27), enforcePeriodicBox=wrapped) as reporter:
            simulation.reporters.append(reporter)
            simulation.step(400)
    free, wrapped = (EmbeddingStore.open(tmp_path / name).coordinates for name in ("free", "wrapped"))
    assert np.abs(np.diff(free, axis=0)).max() < 0.8 < np.abs(np.diff(wrapped, axis=0)).max()
    assert wrapped.min() >= 0 and wrapped.max() <= 1.6 and free.max() > 1.7


def test_several_replicas_write_into_one_run(tmp_path: Path) -> None:
    simulations = [argon_simulation(seed) for seed in (1, 2, 3)]
    reporters = [EmbeddingReporter(tmp_path / f"replica-{k}", 5, DistanceFeaturizer()) for k in range(3)]
    for simulation, reporter in zip(simulations, reporters, strict=True):
        simulation.reporters.append(reporter)
    for _ in range(4):
        for simulation in simulations:
            simulation.step(10)
    for reporter in reporters:
        reporter.close()
    stores = EmbeddingStore.replicas(tmp_path)
    assert list(stores) == ["replica-0", "replica-1", "replica-2"]
    assert all(store.steps.tolist() == list(range(5, 45, 5)) for store in stores.values())
    assert not np.array_equal(stores["replica-0"].embeddings, stores["replica-1"].embeddings)


@pytest.mark.parametrize("worker", WORKERS[:2])
def test_a_restart_cuts_what_lies_past_the_restored_step(tmp_path: Path, worker: str | None) -> None:
    whole = run_to(tmp_path / "whole", 120, worker)
    simulation = argon_simulation()
    with EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer(), worker=worker) as reporter:
        simulation.reporters.append(reporter)
        simulation.step(65)
        save_checkpoint(simulation, tmp_path / "checkpoint")
        simulation.step(40)
    simulation = argon_simulation(seed=7)
    simulation.loadCheckpoint(str(tmp_path / "checkpoint"))
    with EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer(), append=True, worker=worker) as reporter:
        simulation.reporters.append(reporter)
        with pytest.warns(UserWarning, match=r"4 frames past step 65 dropped, copied to set-aside.npy"):
            simulation.step(55)
    assert_same_frames(EmbeddingStore.open(tmp_path / "run"), whole)
    assert np.load(tmp_path / "run" / "set-aside.npy")["step"].tolist() == [70, 80, 90, 100]


@pytest.mark.parametrize(
    ("equilibration", "why"), [(0, "before all stored frames"), (20, "nm from its place"), (25, "")]
)
def test_another_run_drops_no_stored_frame(tmp_path: Path, equilibration: int, why: str) -> None:
    """A job that begins from the last positions, and not from a checkpoint, equilibrated again or not."""
    run_to(tmp_path / "run", 100)
    before = EmbeddingStore.open(tmp_path / "run")
    steps, embeddings = before.steps, np.array(before.embeddings)
    simulation = argon_simulation(seed=5)
    simulation.step(equilibration)
    reporter = EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer(), append=True)
    simulation.reporters.append(reporter)
    if why:
        with pytest.raises(DataError, match=rf"ends at step 100, .* is at step {equilibration}, .*{why}.*replace=True"):
            simulation.step(10)
        reporter.close()
        assert EmbeddingStore.open(tmp_path / "run").steps.tolist() == steps.tolist()
    else:  # between two frames: the same run or not, what is cut is copied
        with pytest.warns(UserWarning, match="copied to set-aside.npy"):
            simulation.step(10)
        reporter.close()
        aside = np.load(tmp_path / "run" / "set-aside.npy")
        assert aside["step"].tolist() == [30, 40, 50, 60, 70, 80, 90, 100]
        assert np.array_equal(aside["embedding"], embeddings[2:])


def test_frames_of_another_run_are_dropped_when_asked(tmp_path: Path) -> None:
    run_to(tmp_path, 50)
    simulation = argon_simulation(seed=5)
    with EmbeddingReporter(tmp_path, 10, DistanceFeaturizer(), append=True, replace=True) as reporter:
        simulation.reporters.append(reporter)
        with pytest.warns(UserWarning, match="5 frames past step 0 dropped"):
            simulation.step(20)
    assert EmbeddingStore.open(tmp_path).steps.tolist() == [10, 20]


def test_going_back_within_one_session_cuts_too(tmp_path: Path) -> None:
    whole, simulation = run_to(tmp_path / "whole", 60), argon_simulation()
    with EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer()) as reporter:
        simulation.reporters.append(reporter)
        simulation.step(30)
        save_checkpoint(simulation, tmp_path / "checkpoint")
        simulation.step(20)
        simulation.loadCheckpoint(str(tmp_path / "checkpoint"))
        with pytest.warns(UserWarning, match="2 frames past step 30 dropped"):
            simulation.step(30)
    assert_same_frames(EmbeddingStore.open(tmp_path / "run"), whole)


def test_a_step_count_set_back_while_time_goes_on_drops_nothing(tmp_path: Path) -> None:
    simulation = argon_simulation()
    with EmbeddingReporter(tmp_path, 10, DistanceFeaturizer()) as reporter:
        simulation.reporters.append(reporter)
        simulation.step(30)
        simulation.currentStep = 0
        with pytest.raises(DataError, match=r"is at step 0, at 0.06 ps, where step 10 is stored at 0.02 ps"):
            simulation.step(30)
    assert EmbeddingStore.open(tmp_path).steps.tolist() == [10, 20, 30]


def test_the_frame_of_a_checkpoint_written_just_before_its_report_is_made_from_it(tmp_path: Path) -> None:
    whole, simulation = run_to(tmp_path / "whole", 60), argon_simulation()
    reporter = EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer())
    simulation.reporters.append(reporter)
    simulation.step(30)
    simulation.reporters.clear()
    simulation.step(10)  # to step 40, where OpenMM writes the checkpoint before our report, and is killed
    save_checkpoint(simulation, tmp_path / "checkpoint")
    reporter.close()
    simulation = argon_simulation()
    simulation.loadCheckpoint(str(tmp_path / "checkpoint"))
    with EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer(), append=True) as reporter:
        simulation.reporters.append(reporter)
        simulation.step(20)
    assert_same_frames(EmbeddingStore.open(tmp_path / "run"), whole)


def test_missing_frames_are_said(tmp_path: Path) -> None:
    run_to(tmp_path, 30)
    simulation = argon_simulation()
    simulation.step(75)
    with EmbeddingReporter(tmp_path, 10, DistanceFeaturizer(), append=True) as reporter:
        simulation.reporters.append(reporter)
        with pytest.warns(UserWarning, match="ends at step 30, the simulation goes on from step 75"):
            simulation.step(5)


def test_wrong_arguments_and_foreign_stores_are_refused(tmp_path: Path) -> None:
    run_to(tmp_path / "run", 20)
    with pytest.raises(DataError, match="holds 2 frames already"):
        EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer())
    with pytest.raises(DataError, match=r"encoder.hash: '1' stored, '2' given"):
        EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer(seed=2), append=True)
    with pytest.raises(DataError, match="holds float16, float32 was asked for"):
        EmbeddingReporter(tmp_path / "run", 10, DistanceFeaturizer(), append=True, dtype="float32")
    with pytest.raises(SpecError, match="worker is 'fork'"):
        EmbeddingReporter(tmp_path / "new", 10, DistanceFeaturizer(), worker="fork")
    with pytest.raises(SpecError, match="reportInterval is 0"):
        EmbeddingReporter(tmp_path / "new", 0, DistanceFeaturizer())
    larger = DistanceFeaturizer()
    larger.num_particles = 99
    simulation = argon_simulation()
    simulation.reporters.append(EmbeddingReporter(tmp_path / "new", 10, larger))
    with pytest.raises(SpecError, match="made for 99 particles, the simulation has 27"):
        simulation.step(1)


@pytest.mark.parametrize("worker", WORKERS)
def test_nan_of_a_model_stops_the_run_and_leaves_the_store_whole(tmp_path: Path, worker: str | None) -> None:
    broken, simulation = DistanceFeaturizer(), argon_simulation()
    broken.nan_from = 3
    reporter = EmbeddingReporter(tmp_path, 10, broken, worker=worker)
    simulation.reporters.append(reporter)
    with pytest.raises(NonFiniteError, match=r"step 40: the embedding of token 2 \(AR3\) is NaN or infinite"):
        for _ in range(100):
            simulation.step(10)
            time.sleep(0.01)
    with pytest.raises(NonFiniteError, match="step 40"):
        simulation.step(10)
    reporter.close()  # has been raised
    store = EmbeddingStore.open(tmp_path)
    assert store.steps.tolist() == [10, 20, 30]
    assert len(store.verify()) == 0


class FailingFeaturizer(DistanceFeaturizer):
    def features(
        self, positions: np.ndarray, box_vectors: np.ndarray | None = None, of_read_atoms: bool = False
    ) -> np.ndarray:
        raise RuntimeError("CUDA out of patience")


@pytest.mark.parametrize("worker", WORKERS)
def test_an_error_of_the_worker_reaches_the_user_at_close_with_its_text(tmp_path: Path, worker: str | None) -> None:
    simulation, reporter = argon_simulation(), EmbeddingReporter(tmp_path, 10, FailingFeaturizer(), worker=worker)
    simulation.reporters.append(reporter)
    with pytest.raises(OpenMMGNNError, match="features of step 10: RuntimeError: CUDA out of patience"):
        simulation.step(10)
        reporter.close()
    reporter.close()


def test_a_killed_process_of_the_worker_is_named(tmp_path: Path) -> None:
    simulation = argon_simulation()
    reporter = EmbeddingReporter(tmp_path, 10, DistanceFeaturizer(), worker="process")
    simulation.reporters.append(reporter)
    simulation.step(20)
    reporter.flush()
    reporter._stream._process._process.kill()  # type: ignore[union-attr]
    with pytest.raises(OpenMMGNNError, match="the process that makes the features ended with -9"):
        simulation.step(20)
        reporter.close()
    assert EmbeddingStore.open(tmp_path).steps.tolist() == [10, 20]


def test_the_simulation_goes_on_while_the_worker_works_and_waits_when_too_many_frames_wait(tmp_path: Path) -> None:
    simulation, slow = argon_simulation(), DistanceFeaturizer(seconds=0.2)
    simulation.step(10)
    with EmbeddingReporter(tmp_path, 1, slow, maxPending=4) as reporter:
        simulation.reporters.append(reporter)
        simulation.step(5)  # one is in work, four wait
        assert reporter.waited < 0.1
        assert len(reporter.store) < 4
        simulation.step(5)
        assert reporter.waited > 0.6
        assert len(reporter.store) < 9
    assert EmbeddingStore.open(tmp_path).steps.tolist() == list(range(11, 21))


def test_only_positions_that_matter_are_kept_and_the_ring_is_bounded(tmp_path: Path) -> None:
    simulation = argon_simulation()
    with EmbeddingReporter(tmp_path, 1, DistanceFeaturizer(num_tokens=3), maxPending=2) as reporter:
        simulation.reporters.append(reporter)
        simulation.step(50)
        ring = np.load(tmp_path / "pending.npy")
        assert ring["positions"].shape == (4, 3, 3)
        assert set(ring["step"]) <= set(range(1, 51))


def test_the_worker_has_threads_of_its_own(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run_to(tmp_path, 20)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


FORGETFUL = """
simulation = argon_simulation()
featurizer = DistanceFeaturizer(seconds=0.02)
simulation.reporters.append(EmbeddingReporter(sys.argv[1], 1, featurizer, worker=sys.argv[2], maxPending=50))
simulation.step(40)
"""


@pytest.mark.parametrize("worker", WORKERS[1:])
def test_nothing_is_lost_at_the_end_of_the_interpreter(tmp_path: Path, worker: str) -> None:
    script = SCRIPT + FORGETFUL
    done = run_python("-c", script, tmp_path, worker)
    assert (done.returncode, done.stderr) == (0, "")
    store = EmbeddingStore.open(tmp_path)
    assert store.steps.tolist() == list(range(1, 41))
    assert store.is_closed


def test_an_error_nobody_asked_for_is_printed_at_the_end_of_the_interpreter(tmp_path: Path) -> None:
    broken = FORGETFUL.replace("simulation.reporters", "featurizer.nan_from = 30\nsimulation.reporters")
    script = SCRIPT + broken
    done = run_python("-c", script, tmp_path, "thread")
    assert "NonFiniteError: step 31: the embedding of token 2 (AR3) is NaN" in done.stderr
    assert EmbeddingStore.open(tmp_path).steps.tolist() == list(range(1, 31))


def test_a_full_disk_stops_the_simulation_in_words_and_the_store_can_be_gone_on_with(tmp_path: Path) -> None:
    script = SCRIPT + FORGETFUL.replace("40", "100000").replace("0.02", "0")
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))\n" + script
    done = run_python("-c", script, tmp_path, "thread")
    assert done.returncode == 1
    assert f"DataError: {tmp_path / 'frames.npy'} takes no more (File too large)" in done.stderr
    store = EmbeddingStore.open(tmp_path)
    assert len(store) > 20
    assert len(store.verify()) == 0
    simulation = argon_simulation()
    with EmbeddingReporter(tmp_path, 1, DistanceFeaturizer(), append=True, replace=True) as reporter:
        simulation.reporters.append(reporter)
        with pytest.warns(UserWarning, match="dropped"):
            simulation.step(150)
    assert_same_frames(store, run_to(tmp_path / "whole", 150, interval=1))


MEMORY = """
def resident_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))
simulation = argon_simulation()
with EmbeddingReporter(sys.argv[1], 1, DistanceFeaturizer()) as reporter:
    simulation.reporters.append(reporter)
    simulation.step(2000)
    before = resident_kib()
    simulation.step(10000)
    print(len(reporter.store), resident_kib() - before)
"""


def test_memory_stays_flat_over_ten_thousand_reports(tmp_path: Path) -> None:
    script = SCRIPT + MEMORY
    done = run_python("-c", script, tmp_path)
    assert done.returncode == 0, done.stderr
    count, growth_kib = map(int, done.stdout.split())
    assert count >= 12000 - 17
    assert growth_kib < 1024, "a frame is 0.4 KiB: keeping each would take 4 MiB"
