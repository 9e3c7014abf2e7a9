"""What `openmm-gnn export` writes: energy and forces of a network or a learned CV, for programs that have no Python.

Such a program loads the library of the operators (`libopenmm_gnn_cpu.so`) with dlopen or `torch.ops.load_library`, then
the file, and calls it with positions in nm and, for a periodic System, box vectors; it gets the energy in kJ/mol and
forces in kJ/mol/nm. Gradients are written out (kernels/written_gradients.py).
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import write_atomically
from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.base.specs.force import ExportFormat
from openmm_gnn.features.learned_cv import KIND, LEARNED_CVS, LearnedCV, load_learned_cv
from openmm_gnn.forces.modules.cv_module import CVEnergyModule, CVModule, check_output
from openmm_gnn.forces.modules.derivatives import check_derivatives
from openmm_gnn.forces.modules.nnpot import EXTRA_FILES, nnpot_module
from openmm_gnn.forces.modules.openmm_module import (
    OpenMMModule,
    check_export,
    check_num_positions,
    script_module,
    to_torchscript,
)
from openmm_gnn.forces.modules.programs import compile_program, program_of, save_program
from openmm_gnn.graph.topology_tables import real_atoms
from openmm_gnn.kernels.written_gradients import scripted, written_out
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.networks.force_model import ForceModel, with_written_gradient
from openmm_gnn.networks.weights import BUNDLE_SUFFIX, load_model, read_bundle, shipped_names

Exportable = ForceModel | LearnedCV


class WrittenCV(nn.Module):
    """One output of a CV as an energy with its forces, the gradient written out. Scriptable."""

    def __init__(self, module: CVEnergyModule, periodic: bool) -> None:
        """
        Args:
            module: of the output, in evaluation mode.
            periodic: whether box vectors come with the positions.
        """
        super().__init__()
        self.spec_json, self.num_particles, self.periodic = module.spec_json, module.num_particles, periodic
        graph = written_out(lambda positions, box: module(positions, box if periodic else None), self.examples())
        self.written = scripted(graph)

    @torch.jit.unused
    def examples(self) -> tuple[Tensor, Tensor]:
        """Positions and box vectors, which are not read unless the System is periodic."""
        return torch.zeros((self.num_particles, 3), dtype=torch.float64), torch.eye(3, dtype=torch.float64)

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `CVEnergyModule`.

        Raises:
            ValueError: if box vectors come where none were expected, or the other way round; torch.jit.Error once it is
                scripted.
        """
        check_num_positions(positions, self.num_particles)
        if (box_vectors is not None) != self.periodic:
            raise ValueError(f"the module was exported with periodic={self.periodic}: give box vectors just then")
        box = positions if box_vectors is None else box_vectors
        energy, forces = self.written(positions.to(torch.float64), box.to(torch.float64))
        return energy.to(positions.dtype), forces.to(positions.dtype).contiguous()


def eager_module(network: Exportable, topology: Any, output: int = 0) -> nn.Module:
    """The module (positions, box_vectors) -> (energy, forces) in plain PyTorch, in evaluation mode.

    Raises:
        SpecError: if the CV has no such output.
        TopologyError: if the network does not fit the topology.
    """
    if isinstance(network, LearnedCV):
        return _energy_of(network, topology, output)
    module = OpenMMModule(network, topology).eval()
    module.compiled = None
    return module


def _energy_of(cv: LearnedCV, topology: Any, output: int) -> CVEnergyModule:
    check_output(cv, output)
    return CVEnergyModule(CVModule(cv, topology), output, spec_to_json(cv.network.spec)).eval()


def exported_module(network: Exportable, topology: Any, periodic: bool, output: int = 0) -> torch.jit.ScriptModule:
    """The TorchScript module of a network or a CV for one topology that needs no Python on the CPU.

    Args:
        topology: openmm.app.Topology.
        periodic: whether a CV's System is periodic; a network serves both.
        output: which of a CV's outputs.
    Raises:
        SpecError: if the CV has no such output.
        TopologyError: if the network does not fit the topology.
    """
    if isinstance(network, ForceModel):
        return script_module(with_written_gradient(network, len(real_atoms(topology))), topology)
    return to_torchscript(WrittenCV(_energy_of(network, topology, output), periodic))


def export(
    network: Exportable, topology: Any, path: str | os.PathLike[str], periodic: bool = False, output: int = 0
) -> Path:
    """Write `exported_module`; the file is complete or not there at all. `load_model` reads that of a network."""
    return _written(exported_module(network, topology, periodic, output), path)


def export_for(
    system: SimulationSystem,
    network: Exportable,
    path: str | os.PathLike[str],
    output: int = 0,
    file_format: ExportFormat = ExportFormat.PT,
) -> Path:
    """Check the exported module at the positions of a system, and write it.

    Args:
        path: a name that ends as the format wants.
        output: which of a CV's outputs; metatomic has them all.
    Raises:
        OpenMMGNNError: naming the check that failed, the deviation and the tolerance.
        SpecError, TopologyError: as `exported_module`; and for a CV as a potential of GROMACS.
        DataError: if the name of the file ends otherwise.
        BackendError: if the format needs a compiler, and there is none.
        ModuleNotFoundError: if the format is metatomic's, and metatomic is not installed.
    """
    path = Path(path)
    ending = ".pt2" if file_format in (ExportFormat.PT2, ExportFormat.AOTI) else ".pt"
    if path.suffix != ending:
        raise DataError(f"{path} is to be of the format {file_format.value}: give a name that ends in {ending}")
    positions = torch.from_numpy(system.positions.copy())
    box = None if system.box_vectors is None else torch.from_numpy(system.box_vectors)
    if file_format is ExportFormat.METATOMIC:
        return _write_metatomic(system, network, path, output)
    eager = eager_module(network, system.topology, output)
    if file_format is ExportFormat.PT:
        module = exported_module(network, system.topology, system.periodic, output)
        check_export(module, eager, positions, box)
        return _written(module, path)
    if file_format is ExportFormat.NNPOT:
        module = nnpot_module(network, system.topology)
        check_export(module.module, eager, positions, box)
        return _written(module, path, EXTRA_FILES)
    write = save_program if file_format is ExportFormat.PT2 else compile_program
    write(program_of(eager, positions, box), path)
    return path


def _write_metatomic(system: SimulationSystem, network: Exportable, path: Path, output: int) -> Path:
    if output != 0:
        raise SpecError(f"output is {output}: a file for metatomic has all outputs of a CV, so give none")
    from openmm_gnn.forces.modules.metatomic_model import metatomic_model, save_metatomic

    model = metatomic_model(network, system.topology, system.periodic)
    positions = torch.from_numpy(system.positions.copy())
    box = None if system.box_vectors is None else torch.from_numpy(system.box_vectors)
    for one in range(model.module.num_values):
        check_derivatives(model.module.derivatives, eager_module(network, system.topology, one), positions, box, one)
    save_metatomic(model, path)
    return path


def load_exportable(name_or_path: str | os.PathLike[str]) -> Exportable:
    """A network or a learned CV: a shipped name, or a file.

    Raises:
        FileNotFoundError, DataError: as `networks.weights.load`.
    """
    name = str(name_or_path)
    is_bundle = name.endswith(BUNDLE_SUFFIX) and Path(name).is_file()
    if name in shipped_names(LEARNED_CVS) or (is_bundle and f'"{KIND}"' in read_bundle(Path(name))[0]):
        return load_learned_cv(name)
    return load_model(name)


def _written(
    module: torch.jit.ScriptModule, path: str | os.PathLike[str], extra_files: dict[str, str] | None = None
) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: torch.jit.save(module, file, _extra_files=extra_files))
    return path
