"""Values of a learned CV at some positions, then forces from slopes there: what a bias asks at every step.

By `torch.autograd` a step of ten atoms is 500 operations of PyTorch. On the CPU it is two compiled ones instead. They
are made of three stages, each with its vector-Jacobian product: positions to edges, edges to atoms, atoms to outputs.
Where a stage has no compiled form, autograd does that stage, and where edges have none, everything; `cv_evaluation`
chooses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.specs.encoder import NeighborRule
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.kernels.array_program import ArrayProgram
from openmm_gnn.kernels.array_recorder import NotRecordable
from openmm_gnn.kernels.encoder_messages import attention_network_and_kept, attention_network_gradients
from openmm_gnn.kernels.learned_cv import CompiledCV, MoleculeEdges, MoleculeSearch
from openmm_gnn.networks.encoders.torchmd_et import TorchMDET

_MOST_ATOMS = 2000
"""Atoms of a graph up to which a test of every pair costs little beside the encoder."""


class CVEvaluation(Protocol):
    """A CV at positions, in two parts: between them the bias says its slope. Not for several threads at once."""

    def values(self, read: Tensor, box_vectors: Tensor | None) -> np.ndarray:
        """(D,) float64, of the chosen outputs.

        Args:
            read: (num_read, 3) nm, positions of `CVModule.read_atoms`.
            box_vectors: (3, 3) nm; None: open boundaries.
        """
        ...

    def forces(self, slopes: np.ndarray) -> Tensor:
        """(M, num_read, 3) kJ/mol/nm, of the dtype and device of the last positions; may be asked again.

        Those of a row do not depend on the other rows, to the last bit.

        Args:
            slopes: (M, D) kJ/mol per unit of each output, at the last values, of M energies.
        """
        ...


def cv_evaluation(module: CVModule, outputs: Sequence[int], device: torch.device) -> CVEvaluation:
    """The evaluation of these outputs of a CV on a device: compiled where that is possible.

    Args:
        module: in evaluation mode, on the CPU.
    """
    spec = module.encoder.spec
    largest = int(torch.bincount(module.graph).max())
    has_edges = spec.neighbor_rule in (NeighborRule.FADING, NeighborRule.FULL) and largest <= _MOST_ATOMS
    if device.type != "cpu" or module.dtype != torch.float32 or not has_edges:
        return AutogradEvaluation(module, outputs, device)
    atoms, tail = _atoms_stage(module), _outputs_stage(module, tuple(outputs))
    if isinstance(atoms, AttentionStage) and isinstance(tail, ArrayProgram):
        return CompiledEvaluation(module, outputs, atoms, tail)
    return StagedEvaluation(module, outputs, atoms, tail)


class AutogradEvaluation:
    """By one pass through a frozen TorchScript module and back, on any device."""

    def __init__(self, module: CVModule, outputs: Sequence[int], device: torch.device) -> None:
        """As `cv_evaluation`."""
        # Frozen weights cannot follow to another device.
        placed = module if device.type == "cpu" else copy.deepcopy(module).to(device)
        self._module = torch.jit.freeze(torch.jit.script(placed), ["prepared", "values"])
        self._chosen = torch.tensor(outputs, device=device)
        self._num_selected, self._per_nm = module.num_selected, module.per_nm

    def values(self, read: Tensor, box_vectors: Tensor | None) -> np.ndarray:
        """As `CVEvaluation.values`."""
        self._read = read
        with torch.inference_mode(False), torch.enable_grad():
            self._centred, box = self._module.prepared(read, box_vectors)
            self._centred.requires_grad_(True)
            self._outputs = self._module.values(self._centred, box)[self._chosen]
        return self._outputs.detach().double().cpu().numpy()

    def forces(self, slopes: np.ndarray) -> Tensor:
        """As `CVEvaluation.forces`."""
        with torch.inference_mode(False):
            directions = torch.from_numpy(slopes).to(self._outputs)
            forces = self._read.new_zeros((len(slopes), *self._read.shape))
            for direction, to in zip(directions, forces, strict=True):
                with torch.enable_grad():  # of a sum: given a direction as an argument, PyTorch imports SymPy
                    energy = (self._outputs * direction).sum()
                (gradient,) = torch.autograd.grad([energy], [self._centred], retain_graph=True)
                to[: self._num_selected] = gradient.to(forces.dtype) * -self._per_nm
        return forces


class Stage(Protocol):
    """A function of tensors, and gradients by its inputs from those by its results."""

    def forward(self, *inputs: Tensor) -> Any: ...

    def backward(self, *gradients: Tensor) -> Any: ...


class AutogradStage:
    """A stage of PyTorch's operations."""

    def __init__(self, function: Callable[..., Any], constants: int = 0) -> None:
        """
        Args:
            function: tensors -> a tensor or several.
            constants: number of inputs, the first ones, that have no gradients.
        """
        self._function, self._constants = function, constants

    def forward(self, *inputs: Tensor) -> Any:
        """The function's results."""
        with torch.inference_mode(False), torch.enable_grad():
            fixed = [one.clone() for one in inputs[: self._constants]]
            self._inputs = [one.clone().requires_grad_() for one in inputs[self._constants :]]
            self._results = self._function(*fixed, *self._inputs)
        return self._results if isinstance(self._results, tuple) else self._results.detach()

    def backward(self, *gradients: Tensor) -> list[Tensor | None]:
        """Gradients by all inputs but the constants."""
        results = self._results if isinstance(self._results, tuple) else (self._results,)
        with torch.inference_mode(False):
            with torch.enable_grad():
                total = sum((one * given.clone()).sum() for one, given in zip(results, gradients, strict=True))
            found = torch.autograd.grad([total], self._inputs, retain_graph=True, allow_unused=True)
            return [None if one is None else one.contiguous() for one in found]


class AttentionStage:
    """A whole `TorchMDET` of fixed weights: edges to atoms."""

    def __init__(self, network: TorchMDET, numbers: Tensor) -> None:
        """
        Args:
            numbers: (N,) atomic numbers.
        """
        norm = torch.stack([network.norm.weight, network.norm.bias])
        self.weights = (network.embedding(numbers), network.packed, network.tables, norm)
        self.cutoff, self.head_width = network.cutoff, network.head_width

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scalars and vectors of atoms from index, vectors and distances of edges."""
        self._given = (*inputs, *self.weights, self.cutoff, self.head_width)
        scalars, vectors, self._kept = attention_network_and_kept(*self._given)
        return scalars, vectors

    def backward(self, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients by vectors and distances of edges."""
        return attention_network_gradients(*self._given, self._kept, *gradients)


class _Evaluation:
    """What evaluations on the CPU and in float32 share: how edges are found, and autograd where an atom sees images."""

    def __init__(self, module: CVModule, outputs: Sequence[int]) -> None:
        spec = module.encoder.spec
        sizes = torch.bincount(module.graph)
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        most = spec.max_neighbors if spec.neighbor_rule is NeighborRule.FADING else 0
        self._search = MoleculeSearch(
            module.hops, module.molecule, module.graph_rows, starts, module.per_nm, spec.cutoff, most
        )
        self._module, self._outputs = module, tuple(outputs)
        self._general: AutogradEvaluation | None = None
        self.served = True
        """Whether the last step was not autograd's."""

    def values(self, read: Tensor, box_vectors: Tensor | None) -> np.ndarray:
        """As `CVEvaluation.values`; by autograd where an atom may see an image of another one."""
        box = None if box_vectors is None else box_vectors.to(torch.float64)
        self._dtype = read.dtype
        values = self._values(read.to(torch.float64), box)
        self.served = values is not None
        if values is not None:
            return values
        if self._general is None:
            self._general = AutogradEvaluation(self._module, self._outputs, torch.device("cpu"))
        return self._general.values(read, box_vectors)

    def forces(self, slopes: np.ndarray) -> Tensor:
        """As `CVEvaluation.forces`."""
        if self._general is not None and not self.served:
            return self._general.forces(slopes)
        return self._forces(torch.from_numpy(slopes)).to(self._dtype)

    def _values(self, read: Tensor, box: Tensor | None) -> np.ndarray | None:
        raise NotImplementedError

    def _forces(self, slopes: Tensor) -> Tensor:
        raise NotImplementedError


class CompiledEvaluation(_Evaluation):
    """By two operators: an encoder and a network that are compiled as a whole."""

    def __init__(self, module: CVModule, outputs: Sequence[int], atoms: AttentionStage, tail: ArrayProgram) -> None:
        """As `cv_evaluation`, and the stages."""
        super().__init__(module, outputs)
        self._cv = CompiledCV(self._search, *atoms.weights, atoms.head_width, tail)

    def _values(self, read: Tensor, box: Tensor | None) -> np.ndarray | None:
        values = self._cv.values(read, box)
        return None if values is None else values.numpy()

    def _forces(self, slopes: Tensor) -> Tensor:
        return self._cv.forces(slopes)


class StagedEvaluation(_Evaluation):
    """By stages, of which at least one is autograd's."""

    def __init__(self, module: CVModule, outputs: Sequence[int], atoms: Stage, tail: Stage) -> None:
        """As `cv_evaluation`, and the stages."""
        super().__init__(module, outputs)
        self._turned = module.encoder.receives_at_source
        self._atoms, self._tail = atoms, tail
        self._found: MoleculeEdges | None = None

    def _values(self, read: Tensor, box: Tensor | None) -> np.ndarray | None:
        with torch.inference_mode():
            self._found = found = self._search.edges(read, box)
            if found is None:
                return None
            index, vectors = (found.index.flip(0), -found.vectors) if self._turned else (found.index, found.vectors)
            scalars, atom_vectors = self._atoms.forward(index, vectors, found.distances)
            outputs: Tensor = self._tail.forward(scalars, atom_vectors, found.centred)
            return outputs.numpy().astype(np.float64)

    def _forces(self, slopes: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.stack([self._forces_of(slope) for slope in slopes.to(torch.float32)])

    def _forces_of(self, slope: Tensor) -> Tensor:
        assert self._found is not None
        scalars, atom_vectors, centred = self._tail.backward(slope)
        vectors, distances = self._atoms.backward(scalars, atom_vectors)
        centred = torch.zeros_like(self._found.centred) if centred is None else centred
        return self._search.forces(self._found, -vectors if self._turned else vectors, distances, centred)


def _atoms_stage(module: CVModule) -> Stage:
    network = module.encoder.network
    if isinstance(network, TorchMDET) and network.packed.size(0) > 0:
        return AttentionStage(network, module.numbers)
    frozen = torch.jit.freeze(torch.jit.script(network.eval()))
    numbers = module.numbers
    return AutogradStage(lambda index, vectors, distances: frozen(numbers, index, vectors, distances), constants=1)


def _outputs_stage(module: CVModule, outputs: tuple[int, ...]) -> Stage:
    chosen = torch.tensor(outputs)
    atoms, width = module.numbers.size(0), module.encoder.spec.width

    def of_atoms(scalars: Tensor, vectors: Tensor, centred: Tensor) -> Tensor:
        return module.outputs(scalars, vectors, centred).index_select(0, chosen)

    own = torch.Generator().manual_seed(0)  # nobody else's random numbers change
    shapes = ((atoms, width), (atoms, 3, width), (module.num_selected, 3))
    examples = [torch.randn(shape, generator=own) for shape in shapes]
    try:
        return ArrayProgram(of_atoms, examples)
    except NotRecordable:  # such as messages between tokens that are near in space, whose number varies
        return AutogradStage(of_atoms)
