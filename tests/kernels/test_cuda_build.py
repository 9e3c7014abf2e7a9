"""The CUDA files compile for the oldest and the newest architecture without spills, and the library links and loads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compiled_files import kept
from cuda_backends import ALL

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc").glob("*/cuda/*.cu"))
ARCHITECTURES = (75, 90)  # without and with tensor cores; the library's build compiles for all
# 65,536 registers are shared by the 512 threads that a multiprocessor shall hold at least (csrc/base/cuda/launch.h).
MOST_REGISTERS = 128
FEWEST_KERNELS = 4
UNFUSED_SOURCES = ("neighbor_pairs.cu", "frame_edges.cu")  # as in setup.py

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed: CUDA files not compiled")
LIBRARY = ROOT / "openmm_gnn" / "libopenmm_gnn_cuda.so"


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_cuda_file_compiles_without_spills(source: Path) -> None:
    command = ["nvcc", "-std=c++17", "-O3", "--resource-usage", "-lineinfo", f"-I{ROOT / 'csrc'}"]
    # One call for both architectures: the host's part is compiled once, and without -O3, which is for the kernels.
    command += [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    command += ["-Xcompiler", "-O0"]
    command += ["-fmad=false"] if source.name in UNFUSED_SOURCES else []
    command += ["-Werror", "all-warnings", "-c", str(source), "-o", os.devnull]

    def make(report: Path) -> None:
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, f"{source.name}:\n{result.stdout}{result.stderr}"
        report.write_text(result.stdout + result.stderr)

    report = kept(f"{source.stem}.txt", command, make).read_text()
    entries = report.split("Compiling entry function ")[1:]
    for number in ARCHITECTURES:
        architecture = f"sm_{number}"
        report = "".join(entry for entry in entries if f"for '{architecture}'" in entry.splitlines()[0])
        kernels = re.findall(rf"'(\w+)' for '{architecture}'$", report, re.MULTILINE)
        spills = [int(size) for size in re.findall(r"(\d+) bytes spill (?:stores|loads)", report)]
        registers = [int(count) for count in re.findall(r"Used (\d+) registers", report)]
        assert len(kernels) >= FEWEST_KERNELS, (
            f"{architecture}: {len(kernels)} kernels in the report, so it says nothing"
        )
        assert len(spills) == 2 * len(kernels) and len(registers) == len(kernels)
        assert max(spills) == 0, f"{architecture}: registers spill to memory"
        assert max(registers) <= MOST_REGISTERS, f"{architecture}: {max(registers)} registers"


def why_no_library() -> str | None:
    """None where setup.py builds the CUDA library here."""
    asked = os.environ.get("OPENMM_GNN_CUDA")
    if asked == "0":
        return "OPENMM_GNN_CUDA=0: the CUDA library is not built"
    if shutil.which("nvcc") is None or torch.version.cuda is None:
        return "no nvcc or a CPU build of torch: the CUDA library is not built"
    told = subprocess.run(["nvcc", "--version"], check=True, capture_output=True, text=True).stdout
    if asked != "1" and f"release {torch.version.cuda.split('.')[0]}." not in told:
        return "nvcc and torch are of other CUDA versions: the library is built with OPENMM_GNN_CUDA=1 alone"
    return None


@pytest.mark.skipif(why_no_library() is not None, reason=why_no_library() or "")
def test_cuda_library_loads_and_registers_its_operators() -> None:
    """No device is needed to load it. In a process of its own: what it registers stays registered."""
    assert LIBRARY.is_file(), "the installation did not build the CUDA library although nvcc and a CUDA torch are here"
    script = (
        "import torch\n"
        "from openmm_gnn.kernels import library\n"
        "assert library.HAS_CUDA_LIBRARY\n"
        f"for name in {ALL}:\n"
        "    assert torch._C._dispatch_has_kernel_for_dispatch_key(f'openmm_gnn::{name}', 'CUDA'), name\n"
        "print('registered')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("registered")
