"""The CUDA files compile for the oldest and the newest architecture without spills, and the library links and loads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from compiled_files import kept
from cuda_backends import CUDA_ALONE, ENCODERS, PAIRS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc").glob("*/cuda/*.cu"))
ARCHITECTURES = ("sm_75", "sm_90")  # without and with tensor cores; the library's build compiles for all
# 65,536 registers are shared by the 512 threads that a multiprocessor shall hold at least (csrc/base/cuda/launch.h).
MOST_REGISTERS = 128
FEWEST_KERNELS = 4
UNFUSED_SOURCES = ("neighbor_pairs.cu", "frame_edges.cu")  # as in setup.py

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed: CUDA files not compiled")
LIBRARY = ROOT / "openmm_gnn" / "libopenmm_gnn_cuda.so"


@needs_nvcc
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_cuda_file_compiles_without_spills(source: Path) -> None:
    def compile_for(architecture: str) -> str:
        command = ["nvcc", "-std=c++17", "-O3", f"-arch={architecture}", "--resource-usage", "-lineinfo"]
        command += [f"-I{ROOT / 'csrc'}"]
        command += ["-fmad=false"] if source.name in UNFUSED_SOURCES else []
        command += ["-Werror", "all-warnings", "-c", str(source), "-o", os.devnull]

        def make(report: Path) -> None:
            result = subprocess.run(command, capture_output=True, text=True)
            assert result.returncode == 0, f"{source.name} for {architecture}:\n{result.stdout}{result.stderr}"
            report.write_text(result.stdout + result.stderr)

        return kept(f"{source.stem}-{architecture}.txt", command, make).read_text()

    with ThreadPoolExecutor(max_workers=2) as pool:
        reports = dict(zip(ARCHITECTURES, pool.map(compile_for, ARCHITECTURES), strict=True))
    for architecture, report in reports.items():
        kernels = re.findall(r"Compiling entry function '(\w+)'", report)
        spills = [int(size) for size in re.findall(r"(\d+) bytes spill (?:stores|loads)", report)]
        registers = [int(count) for count in re.findall(r"Used (\d+) registers", report)]
        assert len(kernels) >= FEWEST_KERNELS, (
            f"{architecture}: {len(kernels)} kernels in the report, so it says nothing"
        )
        assert len(spills) == 2 * len(kernels) and len(registers) == len(kernels)
        assert max(spills) == 0, f"{architecture}: registers spill to memory"
        assert max(registers) <= MOST_REGISTERS, f"{architecture}: {max(registers)} registers"


built_for_cuda = shutil.which("nvcc") is not None and torch.version.cuda is not None
wanted = os.environ.get("OPENMM_GNN_CUDA", "1") != "0"


@pytest.mark.skipif(not built_for_cuda, reason="no nvcc or a CPU build of torch: the CUDA library is not built")
@pytest.mark.skipif(not wanted, reason="OPENMM_GNN_CUDA=0: the CUDA library is not built")
def test_cuda_library_loads_and_registers_its_operators() -> None:
    """No device is needed to load it. In a process of its own: what it registers stays registered."""
    assert LIBRARY.is_file(), "the installation did not build the CUDA library although nvcc and a CUDA torch are here"
    both = ("neighbor_pairs", "update_neighbor_list", "pair_types", "radial_pair_forces")
    names = (*both, *ENCODERS, *PAIRS, *CUDA_ALONE)
    script = (
        "import torch\n"
        "from openmm_gnn.kernels import library\n"
        "assert library.HAS_CUDA_LIBRARY\n"
        f"for name in {names}:\n"
        "    assert torch._C._dispatch_has_kernel_for_dispatch_key(f'openmm_gnn::{name}', 'CUDA'), name\n"
        "print('registered')\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("registered")
