"""Networks on a GPU, and their step as one CUDA graph: the forces of the CPU, and words where that cannot be."""

from __future__ import annotations

import pickle
import threading
import warnings

import numpy as np
import openmm
import pytest
import torch

from openmm_gnn.base.errors import BackendError, NonFiniteError, in_words
from openmm_gnn.base.specs.force import NeighborSpec, VectorGAMDSpec
from openmm_gnn.forces import torch_force
from openmm_gnn.forces.cuda_module import (
    WARM_UP_CALLS,
    CudaModule,
    DeviceBuffers,
    graph_reports,
    waits_of_this_thread,
    why_not_captured,
)
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.forces.modules.openmm_module import OpenMMModule, script_module
from openmm_gnn.forces.python_force import ModuleComputation
from openmm_gnn.md.contexts import with_model_force
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.vector_gamd import VectorGAMD
from openmm_gnn.networks.weights import load_model

has_torchforce = pytest.mark.skipif(torch_force.why_unavailable() is not None, reason="TorchForce is not installed")
PLATFORMS = [openmm.Platform.getPlatform(index).getName() for index in range(openmm.Platform.getNumPlatforms())]
TOLERANCE = 2e-5
"""Of the largest force: networks compute in float32, sums in another order on the GPU."""


class FakeState:
    """What PythonForce hands over, for calls without a Context."""

    def __init__(self, positions: np.ndarray, box: np.ndarray) -> None:
        self.positions, self.box = positions * openmm.unit.nanometer, box * openmm.unit.nanometer

    def getPositions(self, asNumpy: bool) -> openmm.unit.Quantity:
        return self.positions

    def getPeriodicBoxVectors(self, asNumpy: bool) -> openmm.unit.Quantity:
        return self.box


def argon() -> tuple[torch.jit.ScriptModule, np.ndarray, np.ndarray]:
    system = load_system("argon")
    box = np.asarray(system.box_vectors, dtype=np.float64)
    return script_module(load_model("gamd-argon"), system.topology), np.asarray(system.positions), box


def test_buffers_hand_over_what_they_are_given() -> None:
    positions, box = np.random.default_rng(0).normal(size=(5, 3)), np.eye(3)
    buffers = DeviceBuffers(positions, box, torch.device("cpu"))
    buffers.put(positions, box)
    assert buffers.box is not None
    buffers.keep(torch.tensor(3.0), 2 * buffers.positions + buffers.box.sum())
    buffers.fetch()
    np.testing.assert_array_equal(buffers.host_forces.numpy(), 2 * positions + 3)
    assert float(buffers.host_energy) == 3.0
    assert buffers.fit(positions, box) and not buffers.fit(positions[:4], box)
    assert not buffers.fit(positions, None) and not buffers.fit(positions.astype(np.float32), box)


def test_a_wide_model_with_charges_says_why_it_is_no_graph() -> None:
    module, _, _ = argon()
    assert why_not_captured(module) is None
    topology = water_topology(1, 1.0)
    assert why_not_captured(OpenMMModule(load_model("gamd-tip3p"), topology)) is None
    wide = VectorGAMDSpec(NeighborSpec(0.4), (1, 8), width=272, num_layers=1, pair_cutoff=0.5, charge_width=0.12)
    reason = why_not_captured(OpenMMModule(VectorGAMD(wide), topology))
    assert reason is not None and "grid" in reason


def test_the_reason_of_a_failed_capture_is_the_line_that_says_it() -> None:
    @torch.jit.script
    def failing(x: torch.Tensor) -> torch.Tensor:
        return x.view(7)

    with pytest.raises(RuntimeError) as caught:
        failing(torch.zeros(2))
    assert in_words(caught.value).startswith("shape '[7]' is invalid for input of size 2")
    assert in_words(RuntimeError("CUDA error: invalid\nCompile with `X` to see more.\n")) == "CUDA error: invalid"
    assert in_words(RuntimeError()) == "RuntimeError"


def test_waits_of_other_threads_are_their_own_affair(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's words for a wait, from this thread and from another; its switch is left as it was found."""
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def wait() -> None:
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)

    with warnings.catch_warnings(record=True) as others, waits_of_this_thread() as waits:
        reporter = threading.Thread(target=wait)
        reporter.start()
        reporter.join()
        assert waits == []
        wait()
        wait()
        warnings.warn("something else", stacklevel=1)
    assert len(waits) == 2 and [str(warning.message) for warning in others] == ["something else"]
    assert modes == ["default", "warn", "default"]


def test_a_device_that_cannot_be_is_refused_in_words() -> None:
    module, _, _ = argon()
    with pytest.raises(BackendError, match="give 'cpu', 'cuda' or 'cuda:N'"):
        ModuleComputation(module, True, device="meta")
    with pytest.raises(BackendError, match="give device='cuda'"):
        ModuleComputation(module, True, cuda_graphs=True)
    if not torch.cuda.is_available():
        with pytest.raises(BackendError, match="torch sees no CUDA device"):
            ModuleComputation(module, True, device="cuda")


def test_a_computation_on_the_cpu_survives_pickling_and_reports_no_graph() -> None:
    module, positions, box = argon()
    computation = ModuleComputation(module, True)
    again = pickle.loads(pickle.dumps(computation))  # as OpenMM does with it; never with a stranger's
    assert again.graph_state == "not in use: the network runs on the CPU"
    np.testing.assert_array_equal(again(FakeState(positions, box))[1], computation(FakeState(positions, box))[1])


@has_torchforce
def test_torchforce_is_asked_for_a_graph_and_shows_it() -> None:
    system = load_system("argon")
    force = gamd_force("gamd-argon", system.topology, backend="torchforce", cuda_graphs=True)
    assert force.getProperties()["useCUDAGraphs"] == "true"
    assert "true" not in gamd_force("gamd-argon", system.topology, backend="torchforce").getProperties().values()
    wide = VectorGAMDSpec(NeighborSpec(0.4), (1, 8), width=272, num_layers=1, pair_cutoff=0.5, charge_width=0.12)
    with pytest.raises(BackendError, match="cannot be a CUDA graph"):
        gamd_force(VectorGAMD(wide), water_topology(1, 1.0), backend="torchforce", cuda_graphs=True)


# ---- what only a device can show ------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gamd-argon", "gamd-argon-node", "gamd-amoeba-water", "gamd-tip3p"])
def test_forces_on_a_gpu_are_those_of_the_cpu_with_and_without_a_graph(name: str) -> None:
    model = load_model(name)
    system = load_system("argon" if "argon" in name else "tip3p")
    module = script_module(model, system.topology)
    positions, box = np.asarray(system.positions), np.asarray(system.box_vectors, dtype=np.float64)
    on_cpu = ModuleComputation(module, True)
    generator = np.random.default_rng(1)
    for cuda_graphs in (False, True):
        on_gpu = ModuleComputation(module, True, "cuda", cuda_graphs)
        for _ in range(WARM_UP_CALLS + 15):
            moved = positions + 0.02 * generator.normal(size=positions.shape)
            energy, forces = on_gpu(FakeState(moved, box))
        expected_energy, expected = on_cpu(FakeState(moved, box))
        # The grid of charges is a tenth finer on a device, which on the CPU changes these forces by 1.1e-5 of the
        # largest, 12,000 kJ/mol/nm, and this energy by 8e-6.
        finer = 2 if name == "gamd-tip3p" else 1
        assert np.abs(forces - expected).max() < finer * TOLERANCE * np.abs(expected).max()
        assert energy == pytest.approx(expected_energy, rel=3e-5 if finer == 2 else 1e-5, abs=1e-3)
        assert on_gpu.graph_state.startswith("in use on cuda" if cuda_graphs else "not in use: ")
        assert any("CUDA graph" in line for line in graph_reports())


@pytest.mark.gpu
def test_a_graph_follows_a_box_that_changes_and_says_what_overflows() -> None:
    module, positions, box = argon()
    on_gpu, on_cpu = ModuleComputation(module, True, "cuda", True), ModuleComputation(module, True)
    for _ in range(WARM_UP_CALLS + 1):
        on_gpu(FakeState(positions, box))
    assert on_gpu.graph_state.startswith("in use")
    for scale in (1.02, 0.97):
        given = FakeState(scale * positions, scale * box)
        expected = on_cpu(given)[1]
        assert np.abs(on_gpu(given)[1] - expected).max() < TOLERANCE * np.abs(expected).max()
    bad = positions.copy()
    bad[3, 1] = np.nan
    with pytest.raises(RuntimeError, match="position of atom 3"):
        on_gpu(FakeState(bad, box))
    with pytest.raises(RuntimeError, match="raise max_neighbors"):
        on_gpu(FakeState(0.3 * positions, 0.3 * box))


@pytest.mark.gpu
def test_a_module_that_reads_the_device_runs_on_without_a_graph_and_says_why() -> None:
    class Reading(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spec_json = "{}"

        def forward(
            self, positions: torch.Tensor, box: torch.Tensor | None = None
        ) -> tuple[torch.Tensor, torch.Tensor]:
            return positions.sum() * float(positions[0, 0]), positions.contiguous()

    module = CudaModule(torch.jit.script(Reading()), torch.device("cuda"), cuda_graph=True)
    positions = np.ones((4, 3))
    for _ in range(WARM_UP_CALLS + 3):
        energy, forces = module(positions, None)
        np.testing.assert_array_equal(forces, positions)
        assert energy == pytest.approx(12.0)
    assert module.graph_state.startswith("not in use: the capture failed (called a synchronizing CUDA operation")
    # A capture that CUDA breaks off would leave none to the rest of the process, nor random numbers.
    assert bool(torch.isfinite(torch.rand(3, device="cuda")).all())
    network, positions, box = argon()
    another = ModuleComputation(network, True, "cuda", True)
    for _ in range(WARM_UP_CALLS):
        another(FakeState(positions, box))
    assert another.graph_state.startswith("in use on cuda")


@pytest.mark.gpu
def test_forces_that_are_not_numbers_are_an_error() -> None:
    module, positions, _ = argon()
    with pytest.raises(NonFiniteError, match="the force on particle"):
        CudaModule(module, torch.device("cuda"), cuda_graph=False)(np.full_like(positions, np.nan), np.eye(3) * 3)


@pytest.mark.gpu
@pytest.mark.skipif("CUDA" not in PLATFORMS, reason="OpenMM has no CUDA platform here")
@pytest.mark.parametrize("backend", ["torchforce", "pythonforce"])
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_dynamics_on_the_cuda_platform_give_the_forces_of_the_reference(backend: str, cuda_graphs: bool) -> None:
    from openmm_gnn.forces.backends import available_backends

    if backend not in [name.value for name in available_backends()]:
        pytest.skip(f"{backend} is not installed")
    system = load_system("argon")

    def context_of(platform: str, **how: object) -> openmm.Context:
        force = gamd_force("gamd-argon", system.topology, backend=backend, **how)  # type: ignore[arg-type]
        integrator = openmm.LangevinMiddleIntegrator(100.0, 1.0, 0.002)
        where = openmm.Platform.getPlatformByName(platform)
        return openmm.Context(with_model_force(system.system, force), integrator, where)

    where = {"device": "cuda"} if backend == "pythonforce" else {}
    on_gpu, reference = context_of("CUDA", cuda_graphs=cuda_graphs, **where), context_of("Reference")
    on_gpu.setPositions(system.positions)
    on_gpu.setVelocitiesToTemperature(100.0, 1)
    on_gpu.getIntegrator().step(300)
    state = on_gpu.getState(positions=True, forces=True)
    reference.setPositions(state.getPositions())
    truth = reference.getState(forces=True).getForces(asNumpy=True)._value
    error = np.abs(state.getForces(asNumpy=True)._value - truth).max()
    assert error < 1e-4 * np.abs(truth).max()
