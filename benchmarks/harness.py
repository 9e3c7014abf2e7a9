"""Timing shared by the benchmarks: contenders in turn in one process, medians, and results stored per machine."""

from __future__ import annotations

import gc
import json
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved_medians(
    contenders: Mapping[str, Callable[[], object]],
    seconds: float,
    most_rounds: int = 200,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds per call of each contender, called in turn A B C A B C ... so that drift hits all alike.

    Args:
        contenders: calls without arguments, by name.
        seconds: about how long to measure all of them; at least 3 rounds after one warm-up round.
        most_rounds: upper limit of rounds.
        clock: what is measured; `time.process_time` for work on one thread where others use the machine too.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for call in contenders.values():
        call()
    gc.disable()
    started = time.perf_counter()
    for done in range(most_rounds):
        for name, call in contenders.items():
            start = clock()
            call()
            times[name].append(clock() - start)
        if done >= 2 and time.perf_counter() - started > seconds:
            break
    gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def machine() -> dict[str, Any]:
    """Processor, cores and versions: what a figure means nothing without."""
    from importlib.metadata import version

    import torch

    try:
        names = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    except OSError:
        names = []
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(names),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {name: version(name) for name in ("torch", "openmm", "openmm-gnn")},
    }


def save_results(name: str, results: Any, quick: bool) -> None:
    """Write results/<machine>/<name>.json and say so; quick runs are not kept."""
    if quick:
        return
    here = machine()
    folder = RESULTS / re.sub(r"[^A-Za-z0-9]+", "-", f"{here['processor']} {here['cores']} cores").strip("-").lower()
    folder.mkdir(parents=True, exist_ok=True)
    document = {"machine": here, "date": date.today().isoformat(), "results": results}
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to benchmarks/results/{folder.name}/{name}.json")
