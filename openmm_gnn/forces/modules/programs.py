"""Energy and forces of a network or a learned CV by torch.export, without TorchScript, and compiled by AOTInductor.

A program is one graph of operators for one System: number of particles, boundaries and the grid of charges stay, the
box vectors may change. It keeps nothing between calls: neighbours are searched at each, where an exported TorchScript
module keeps a list. It takes float64 positions, as OpenMM has them, on the CPU.
"""

import copy
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import BackendError, OpenMMGNNError
from openmm_gnn.forces.modules.openmm_module import FORCE_TOLERANCE, OpenMMModule
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.written_gradients import written_out
from openmm_gnn.networks.pair_term import PairTerm, box_lengths, grid_sizes


class PairSearch(nn.Module):
    """The pairs within a cutoff, each once, as a `NeighborList` that keeps nothing."""

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As `NeighborList.forward`."""
        return neighbor_pairs(positions, self.cutoff, box_vectors, full=False)


def program_of(module: nn.Module, positions: Tensor, box_vectors: Tensor | None) -> torch.export.ExportedProgram:
    """The program of a module (positions, box_vectors) -> (energy, forces), checked at these positions.

    Args:
        module: of `exports.eager_module`.
        positions: (num_particles, 3) float64.
        box_vectors: (3, 3) float64; None: the System is not periodic, and the program takes positions alone.
    Raises:
        OpenMMGNNError: if the program's forces are not the module's.
    """
    inputs = (positions,) if box_vectors is None else (positions, box_vectors)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        graph = written_out(_without_state(module, box_vectors), inputs)
        program = torch.export.export(graph, inputs)
        found = program.module()(*inputs)[1]
    right = module(*inputs)[1]
    deviation = float((found - right).abs().max() / right.abs().max().clamp(min=1e-12))
    if not deviation <= FORCE_TOLERANCE:
        raise OpenMMGNNError(
            f"export check failed, the program against the module: forces differ by {deviation:.2e} of the largest "
            f"force, allowed {FORCE_TOLERANCE:.0e}: report this with the versions that `openmm-gnn doctor` prints"
        )
    return program


def save_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program for `torch.export.load`; the file is complete or not there at all."""
    with _unfinished(path) as unfinished, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        torch.export.save(program, unfinished)


def compile_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """Compile a program for `torch._inductor.aoti_load_package`; the file is complete or not there at all.

    Raises:
        BackendError: if there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise BackendError(f"AOTInductor needs a C++ compiler, and there is no {compiler}: install g++, or export pt2")
    from torch._inductor import aoti_compile_and_package

    with _unfinished(path) as unfinished, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        aoti_compile_and_package(program, package_path=str(unfinished))


@contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """A file of the same ending in a folder beside, which takes the name of `path` once it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}-") as folder:
        yield Path(folder) / path.name
        os.replace(Path(folder) / path.name, path)


def _without_state(module: nn.Module, box_vectors: Tensor | None) -> nn.Module:
    """A module that computes the same and keeps nothing; with charges, their grid is that of this box."""
    module = copy.deepcopy(module).requires_grad_(False).eval()
    if isinstance(module, OpenMMModule):
        searches: Any = [PairSearch(one.cutoff) for one in module.model.lists()]
        module.neighbor_lists = nn.ModuleList(searches)
        for term in module.modules():
            if isinstance(term, PairTerm) and term.charge_term is not None:
                sizes = grid_sizes(box_lengths(box_vectors), term.charge_term.width)
                term.sizes_of = lambda box, sizes=sizes: sizes  # type: ignore[method-assign, misc]
    return module
