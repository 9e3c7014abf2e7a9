"""What the machine code of the kernels costs, counted without a GPU: registers, shared memory, instructions of a loop.

Compiles csrc/*/cuda/*.cu for one architecture with nvcc and reads the code with nvdisasm (both are part of the CUDA
toolkit; nvdisasm alone is also the package nvidia-cuda-nvdisasm). The innermost loops of a kernel stand with the
instructions of their shortest way round, which in a neighbour search is a candidate that is no pair, and of their
longest, a pair.
Counts say nothing of waiting for memory; they hold on any machine.

    python benchmarks/gpu/instruction_counts.py [--kernels SearchCells PlanSearch] [--architecture 90]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
UNFUSED_SOURCES = ("neighbor_pairs.cu", "frame_edges.cu")  # as in setup.py


@dataclass(frozen=True)
class Loop:
    """An innermost loop of a kernel."""

    shortest: int
    """Instructions of the shortest way round."""
    longest: int
    """Instructions of the longest way round that takes none twice."""
    wide_loads: int
    """Loads of 16 bytes from global memory in it."""
    loads: int
    """Other loads from global memory."""
    stores: int
    """Stores to global memory."""


@dataclass(frozen=True)
class Kernel:
    """A kernel's machine code."""

    name: str
    instructions: int
    registers: int
    shared_bytes: int
    loops: tuple[Loop, ...]


def tool(name: str) -> str:
    """The path of a program of the CUDA toolkit, on the PATH or in a package of this Python."""
    packaged = sorted(Path(sysconfig.get_paths()["purelib"]).glob(f"nvidia/**/bin/{name}"))
    found = shutil.which(name) or (str(packaged[0]) if packaged else None)
    if found is None:
        sys.exit(
            f"{name} was not found: put the CUDA toolkit's bin folder on the PATH, or pip install nvidia-cuda-{name}"
        )
    return found


def machine_code(source: Path, architecture: int) -> tuple[str, str]:
    """The assembly of a source file, and the compiler's report of resources."""
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "kernels.cubin"
        command = [tool("nvcc"), "-std=c++17", "-O3", "--resource-usage", f"-I{ROOT / 'csrc'}", "-Xcompiler", "-O0"]
        command += [
            f"-gencode=arch=compute_{architecture},code=sm_{architecture}",
            "-cubin",
            str(source),
            "-o",
            str(code),
        ]
        command += ["-fmad=false"] if source.name in UNFUSED_SOURCES else []
        report = subprocess.run(command, check=True, capture_output=True, text=True)
        listing = subprocess.run([tool("nvdisasm"), "-c", str(code)], check=True, capture_output=True, text=True)
    return listing.stdout, report.stdout + report.stderr


def loops_of(lines: list[str]) -> tuple[int, tuple[Loop, ...]]:
    """Number of instructions and the innermost loops of a kernel's listing."""
    code: list[str] = []
    labels: dict[str, int] = {}
    for line in lines:
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.+?) ;", line):
            code.append(instruction[1])
    goes: list[list[int]] = []
    for place, text in enumerate(code):
        target = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", text)
        conditional = text.startswith("@") or re.search(r"\bBRA\s+U?!?U?P\d", text) is not None
        following = [place + 1] if target is None or conditional else []
        goes.append(following + ([labels[target[1]]] if target is not None else []))
    backward = [(to, place) for place, targets in enumerate(goes) for to in targets if to <= place]
    spans = sorted({(to, place) for to, place in backward if to < place})
    inner = [
        span
        for span in spans
        if not any(span[0] <= other[0] and other[1] <= span[1] for other in spans if other != span)
    ]

    def measured(head: int, latch: int) -> Loop:
        shortest, longest = {latch: 1}, {latch: 1}
        for place in range(latch - 1, head - 1, -1):
            onward = [to for to in goes[place] if place < to and to in shortest]
            if onward:
                shortest[place] = 1 + min(shortest[to] for to in onward)
                longest[place] = 1 + max(longest[to] for to in onward)
        body = code[head : latch + 1]
        wide = sum("LDG.E.128" in text for text in body)
        loads = sum("LDG" in text for text in body) - wide
        return Loop(shortest[head], longest[head], wide, loads, sum("STG" in text for text in body))

    return len(code), tuple(measured(*span) for span in inner)


def kernels_of(listing: str, report: str) -> list[Kernel]:
    """All kernels of a file, by their names in the sources."""
    resources = {}
    for entry in report.split("Compiling entry function ")[1:]:
        mangled, registers = re.search(r"'(\w+)'", entry), re.search(r"Used (\d+) registers", entry)
        shared = re.search(r"(\d+) bytes smem", entry)
        if mangled and registers:
            resources[mangled[1]] = int(registers[1]), int(shared[1]) if shared else 0
    found = []
    for section in re.split(r"\n\s*\.section\s+\.text\.", listing)[1:]:
        mangled = section.split(",", 1)[0]
        words = subprocess.run(["c++filt", mangled], check=True, capture_output=True, text=True).stdout
        name = re.sub(r"openmm_gnn::(cuda::)?", "", words)
        name = re.sub(r"^void run_kernel<(.+)>\(.*\)\s*$", r"\1", name.strip()).replace("> >", ">>")
        instructions, loops = loops_of(section.splitlines())
        found.append(Kernel(name, instructions, *resources.get(mangled, (0, 0)), loops))
    return sorted(found, key=lambda kernel: kernel.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kernels", nargs="*", default=[], help="parts of names; all kernels if none is given")
    parser.add_argument("--sources", nargs="*", default=[], help="names of .cu files; all of csrc if none is given")
    parser.add_argument("--architecture", type=int, default=90, help="compute capability without its dot")
    parser.add_argument("--json", type=Path, help="a file to write the counts to")
    asked = parser.parse_args()
    kernels: list[Kernel] = []
    for source in sorted((ROOT / "csrc").glob("*/cuda/*.cu")):
        if not asked.sources or source.name in asked.sources:
            kernels += kernels_of(*machine_code(source, asked.architecture))
    kernels = [kernel for kernel in kernels if not asked.kernels or any(part in kernel.name for part in asked.kernels)]
    table = Table(title=f"sm_{asked.architecture}: instructions of each innermost loop, shortest .. longest way round")
    for heading in ("kernel", "instructions", "registers", "shared, bytes", "loops"):
        table.add_column(heading, justify="left" if heading in ("kernel", "loops") else "right", overflow="fold")
    for kernel in kernels:
        loops = "  ".join(
            f"{loop.shortest}..{loop.longest}" + (f" ({loop.wide_loads} x 16 B)" if loop.wide_loads else "")
            for loop in kernel.loops
        )
        sizes = (f"{size:,}" for size in (kernel.instructions, kernel.registers, kernel.shared_bytes))
        table.add_row(kernel.name, *sizes, loops)
    Console(width=160).print(table)
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(kernel) for kernel in kernels], indent=1) + "\n")


if __name__ == "__main__":
    main()
