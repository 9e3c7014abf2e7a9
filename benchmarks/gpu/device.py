"""Timing on a GPU, shared by the benchmarks of this folder: device events, contenders in turn, medians, ceilings.

Results are kept in benchmarks/results/<name of the GPU>.json, with what a figure means nothing without (phases.py).
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from phases import AGAIN, FOLDER, LIBRARY, RESULTS, digest_of_libraries, results_of
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from openmm_gnn.kernels import library

COPIED, MATRIX = 2**28, 8192
"""Numbers of a copy, four times any cache; rows of a matrix product."""
DENSITY = 100.0
"""Atoms per nm^3, of liquid water."""


def require_gpu() -> None:
    """Ends the program in words where there is no device or no CUDA library of ours."""
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device: these benchmarks need one")
    if not library.HAS_CUDA_LIBRARY:
        sys.exit("the extension was built without CUDA: `make bench-gpu` builds it where nvcc is on the PATH")


def device_medians(
    contenders: Mapping[str, Callable[[], object]], seconds: float, calls: int = 1, most_rounds: int = 300
) -> dict[str, float]:
    """Median milliseconds per call of each contender by device events, called in turn so that drift hits all alike.

    Args:
        contenders: calls without arguments, by name; they need not wait for the device.
        seconds: about how long to measure all of them; at least 5 rounds after 3 of warm-up.
        calls: calls between two events: more than one where a call is short.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for done in range(most_rounds):
        for name, call in contenders.items():
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(calls):
                call()
            stop.record()
            stop.synchronize()
            times[name].append(start.elapsed_time(stop) / calls)
        if done >= 4 and time.perf_counter() - begun > seconds:
            break
    return {name: statistics.median(values) for name, values in times.items()}


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """The same work as one CUDA graph; `call` must be warm, and read and write tensors that stay where they are."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _copy() -> Callable[[], object]:
    source = torch.randn(COPIED, device="cuda")
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _product(dtype: torch.dtype) -> Callable[[], object]:
    a, b = (torch.randn(MATRIX, MATRIX, device="cuda", dtype=dtype) for _ in range(2))
    return lambda: a @ b


def _milliseconds(make: Callable[[], Callable[[], object]]) -> float:
    return device_medians({"": make()}, 1.0)[""]


def ceilings() -> dict[str, float]:
    """What this device reaches: bytes per second of a copy, operations per second of a matrix product."""
    before = torch.backends.cuda.matmul.allow_tf32
    found = {"copy_GB_per_s": 2 * 4 * COPIED / 1e6 / _milliseconds(_copy)}
    kinds = {"float32": (torch.float32, False), "tf32": (torch.float32, True), "bfloat16": (torch.bfloat16, False)}
    for name, (dtype, tf32) in kinds.items():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        found[f"{name}_TFLOP_per_s"] = 2 * MATRIX**3 / 1e9 / _milliseconds(partial(_product, dtype))
    torch.backends.cuda.matmul.allow_tf32 = before
    return found


def random_fluid(num_atoms: int, dtype: torch.dtype = torch.float32, shuffled: bool = False) -> tuple[Tensor, Tensor]:
    """Positions (N, 3) and box (3, 3), nm, on the device: a jittered lattice at water's density.

    Atoms follow one another in space, as molecules of a built box do; shuffled, as after a long run, they do not.
    """
    edge = (num_atoms / DENSITY) ** (1 / 3)
    points = int(num_atoms ** (1 / 3) - 1e-9) + 1
    generator = torch.Generator().manual_seed(0)
    sites = torch.randperm(points**3, generator=generator)[:num_atoms].sort().values
    lattice = torch.stack([sites // points**2, sites // points % points, sites % points], dim=1)
    jitter = 0.6 * torch.rand((num_atoms, 3), generator=generator)
    positions = (lattice + jitter) * (edge / points)
    if shuffled:
        positions = positions[torch.randperm(num_atoms, generator=generator)]
    return positions.to("cuda", dtype), (torch.eye(3) * edge).to("cuda", dtype)


def walk(positions: Tensor, steps: int, step_nm: float = 0.0012) -> list[Tensor]:
    """Frames of a random walk whose atoms move as far per frame as water's do in 2 fs."""
    generator = torch.Generator(device="cuda").manual_seed(1)
    frames = [positions]
    for _ in range(steps):
        kick = torch.randn(positions.shape, generator=generator, device="cuda", dtype=positions.dtype)
        frames.append(frames[-1] + step_nm / 3**0.5 * kick)
    return frames


def machine() -> dict[str, Any]:
    """The GPU, its driver and the versions."""
    properties = torch.cuda.get_device_properties(0)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    for name in ("openmm", "openmm-gnn", "torch-cluster", "torchmd-net", "nvalchemi-toolkit-ops", "deeptime"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_GB": properties.total_memory / 1e9,
        "versions": versions,
    }


def kernel_times(call: Callable[[], object], calls: int = 5) -> dict[str, float]:
    """Microseconds per call of each kernel that a call runs, the longest first."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
    times = {event.key[:120]: event.device_time_total / calls for event in profiled.key_averages()}
    return dict(sorted(times.items(), key=lambda item: -item[1])[:14])


class Rows:
    """The rows of one table in the results of this GPU, each kept as soon as it is measured.

    A row that these libraries have given before, in a call that was broken off, is not measured again. A quick run
    neither reads nor keeps any.
    """

    def __init__(self, table: str, quick: bool) -> None:
        here = machine()
        self.table, self.quick = table, quick
        self.results = results_of(here["gpu"], Path(os.environ.get(FOLDER) or RESULTS))
        self.library = os.environ.get(LIBRARY) or digest_of_libraries(library.FOLDER)
        self.head = {"machine": here, "library": self.library}
        found = self.results.get("tables", table) or {}
        kept = not quick and not os.environ.get(AGAIN) and found.get("library") == self.library
        self.rows: dict[str, Any] = found["rows"] if kept else {}

    def measured(self, name: str, measure: Callable[[], Any]) -> Any:
        """The row of this name: what was kept, or what `measure` gives now."""
        if name not in self.rows:
            self.rows[name] = measure()
            if not self.quick:  # all rows again: one file holds them all, and a kill leaves it whole
                document = {**self.head, "date": date.today().isoformat(), "rows": self.rows}
                self.results.write("tables", self.table, document)
        return self.rows[name]


def save_results(table: str, results: Any, quick: bool) -> None:
    """Keeps a table that is measured as a whole."""
    Rows(table, quick).measured("all", lambda: results)


def kept_ceilings(quick: bool) -> dict[str, float]:
    """`ceilings`, measured once for all tables."""
    found: dict[str, float] = Rows("ceilings", quick).measured("all", ceilings)
    return found
