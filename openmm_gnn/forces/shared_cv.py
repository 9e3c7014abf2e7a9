"""One evaluation of a learned CV for all Forces that are made of its outputs.

OpenMM's samplers take each variable as a Force of its own, and evaluate one after the other at the same positions. The
Forces of one CV and topology therefore share a `SharedCV`: the first that is asked at new positions computes the values
of all outputs, and the gradients of those that are in use together; the others find theirs. A gradient does not depend,
to the last bit, on which others are computed with it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.forces.modules.cv_evaluation import CVEvaluation, cv_evaluation
from openmm_gnn.forces.modules.cv_module import CVEnergyModule, CVModule, SharedCVEnergyModule
from openmm_gnn.forces.modules.openmm_module import module_bytes, to_torchscript
from openmm_gnn.kernels.shared_calls import SHARED

_REMEMBERED = 8
"""Positions whose values are kept: as many threads may step Contexts of one CV without disturbing each other."""
_IDLE_EVALUATIONS = 8
"""New positions after which the gradient of an output that nobody has asked for is no longer computed with others."""


@dataclass
class _Seen:
    """What is known at some positions."""

    values: np.ndarray
    forces: dict[int, Tensor] = field(default_factory=dict)
    """(num_read, 3) of the outputs that were in use."""


class SharedCV:
    """Values of a CV's outputs as energies and their forces, each computed once for some positions."""

    def __init__(self, module: CVModule, name: str) -> None:
        """
        Args:
            module: on the CPU.
            name: that modules know it by, once it is in `SHARED`.
        """
        self.name = name
        self.evaluations = self.gradients = 0
        """How many times the networks were evaluated, and how many gradients were computed."""
        self._module = module.eval()
        self._outputs = tuple(range(module.num_outputs))
        self._by_device: dict[str, CVEvaluation] = {}
        self._seen: OrderedDict[tuple[Any, ...], _Seen] = OrderedDict()
        self._last: dict[str, tuple[Any, ...]] = {}
        """By device, the positions that its evaluation holds: at these, a gradient needs no other evaluation."""
        self._idle: dict[int, int] = {}
        self._lock = threading.Lock()
        self._source = b""

    def output_module(self, output: int) -> torch.jit.ScriptModule:
        """The TorchScript module (positions, box_vectors) -> (energy, forces) of one output, for a Force."""
        alone = CVEnergyModule(self._module, 0, spec_to_json(self._module.network.spec))
        with self._lock:
            if not self._source:  # which takes a second
                self._source = module_bytes(to_torchscript(alone))
        return to_torchscript(SharedCVEnergyModule(alone, self._source, self.name, output))

    def energy_and_forces(self, read: Tensor, box_vectors: Tensor | None, output: int) -> tuple[float, Tensor]:
        """The value of an output, and (num_read, 3) its negative gradient; as `CVEvaluation` takes and gives them.

        Raises:
            RuntimeError: for positions that are not finite.
        """
        device = str(read.device)
        # The bytes: positions that differ in the last bit, and NaN, are other positions.
        box = b"" if box_vectors is None else box_vectors.cpu().numpy().tobytes()
        key = (device, read.dtype, read.cpu().numpy().tobytes(), box)
        with self._lock:
            seen = self._seen.get(key)
            if seen is None:
                seen = self._evaluated(key, read, box_vectors)
                self._idle = {one: idle + 1 for one, idle in self._idle.items() if idle < _IDLE_EVALUATIONS}
            self._idle[output] = 0
            self._seen.move_to_end(key)
            if output not in seen.forces:
                if self._last.get(device) != key:
                    self._evaluated(key, read, box_vectors)
                wanted = [one for one in sorted(self._idle) if one not in seen.forces]
                slopes = np.eye(len(self._outputs))[wanted]
                found = self._on(read.device).forces(slopes)
                self.gradients += len(wanted)
                seen.forces.update(zip(wanted, found, strict=True))
            return float(seen.values[output]), seen.forces[output]

    def forget(self) -> None:
        """Forget all positions, and which outputs are in use."""
        with self._lock:
            self._seen.clear()
            self._last.clear()
            self._idle.clear()

    def _evaluated(self, key: tuple[Any, ...], read: Tensor, box_vectors: Tensor | None) -> _Seen:
        """The networks evaluated at these positions; what was known of them stays."""
        self._last.pop(key[0], None)  # should the evaluation fail half-way
        # A copy: OpenMM may give the memory of these positions to the next ones, and the way back reads them.
        values = self._on(read.device).values(read.clone(), box_vectors)
        self.evaluations += 1
        self._last[key[0]] = key
        seen = self._seen.setdefault(key, _Seen(values))
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return seen

    def _on(self, device: torch.device) -> CVEvaluation:
        name = str(device)
        if name not in self._by_device:
            self._by_device[name] = cv_evaluation(self._module, self._outputs, device)
        return self._by_device[name]


_shared: dict[str, SharedCV] = {}
_lock = threading.Lock()


def shared_cv(module: CVModule) -> SharedCV:
    """The evaluation that all Forces of this CV and topology share in this process.

    It stays for as long as the process, since nothing tells when OpenMM has destroyed the last Force.

    Args:
        module: of the CV and the topology, on the CPU.
    """
    name = _content(module)
    with _lock:
        if name not in _shared:
            _shared[name] = SharedCV(module, name)
            SHARED[name] = _shared[name].energy_and_forces
        return _shared[name]


def _content(module: CVModule) -> str:
    """A hash of all that decides the values: networks, atoms, tokens and graphs."""
    specs = [spec_to_json(module.encoder.spec), spec_to_json(module.network.spec)]
    numbers = [module.num_particles, module.num_graphs, module.mean_of_atoms, str(module.dtype)]
    digest = hashlib.sha256(json.dumps([*specs, *numbers]).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
