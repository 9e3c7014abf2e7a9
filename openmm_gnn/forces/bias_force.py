"""One Force for a bias along several CVs: one forward pass, the bias and its gradient, one vector-Jacobian product.

OpenMM's CustomCVForce evaluates a network per CV. Here the energy is V(s(x)) of all CVs s together, and the forces are
-(dV/ds) . ds/dx, which costs one backward pass however many CVs there are.

The bias V is an object in Python that changes while the simulation runs, and what TorchForce calls is a module whose
buffers Python cannot reach. So the module calls an operator, `openmm_gnn_bias::evaluate`, that is written in Python: it
finds its `BiasForce` by number. The networks run there too, from one place for both backends. The force belongs to
this process, and CUDA graphs must be off.

A change of the bias has to be told to OpenMM, which may have kept the forces of the positions: `changed` does.
"""

# No `from __future__ import annotations` here: TorchScript and torch.library read the types of functions.
import itertools
import weakref
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import openmm
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import BackendError, NonFiniteError, SpecError
from openmm_gnn.features.learned_cv import LearnedCV
from openmm_gnn.forces import python_force, torch_force
from openmm_gnn.forces.gamd_force import Backend, chosen_backend
from openmm_gnn.forces.modules.cv_module import CVModule

_WARM_UP_CALLS = 4
"""TorchScript rewrites a module in its first calls, and its last digits with it: a restart must not see that."""
_numbers = itertools.count()
_forces: "weakref.WeakValueDictionary[int, BiasForce]" = weakref.WeakValueDictionary()


class BiasPotential(Protocol):
    """A bias as the force sees it."""

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """kJ/mol, and (D,) kJ/mol per unit of each CV, at the CVs' values (D,)."""
        ...


@dataclass(frozen=True)
class SeenValues:
    """What a force call saw."""

    values: np.ndarray
    """(D,) of the CVs."""
    energy: float
    """Of the bias, kJ/mol."""


class BiasForce:
    """A bias along several outputs of a learned CV. Make one with `bias_force`, and `add_to` a System."""

    def __init__(
        self,
        cv: LearnedCV,
        topology: Any,
        potential: BiasPotential,
        outputs: tuple[int, ...],
        backend: Backend,
        periodic: bool,
        group: int,
    ) -> None:
        """Use `bias_force`."""
        self.potential = potential
        self.outputs = outputs
        self.group = group
        self.periodic = periodic
        self.latest: SeenValues | None = None
        """Of the last force call; None before the first."""
        module = CVModule(cv, topology)
        self.num_particles, self.num_selected = module.num_particles, module.num_selected
        self.read_atoms = module.read_atoms.numpy().copy()
        self._per_nm = module.per_nm
        # Frozen weights cannot follow to a GPU: there the copy of the first call's device is made.
        self._modules = {"cpu": torch.jit.freeze(torch.jit.script(module.eval()), ["places", "values"])}
        self._module = module
        self._chosen = torch.tensor(outputs)
        self._error: Exception | None = None
        self._number = next(_numbers)
        _forces[self._number] = self
        if backend is Backend.TORCHFORCE:
            script = torch.jit.script(_BiasModule(self._number, self.read_atoms, self.num_particles).eval())
            self.force = torch_force.torch_force(script, periodic)
        else:
            self.force = python_force.callable_force(_BiasComputation(self._number, periodic), periodic)
        self.force.setForceGroup(group)
        self.force.setName("BiasForce")

    @property
    def parameter(self) -> str:
        """The Context's parameter by which OpenMM learns of a change."""
        return f"openmm_gnn_bias_changes_{self.group}"

    def add_to(self, system: openmm.System) -> None:
        """Add the force, and an empty one that brings the parameter of `changed`."""
        system.addForce(self.force)
        bell = openmm.CustomBondForce("0")
        bell.addGlobalParameter(self.parameter, 0.0)
        bell.setForceGroup(self.group)
        bell.setName("BiasChanges")
        system.addForce(bell)

    def changed(self, context: openmm.Context) -> None:
        """The bias is another one from now on: the Context forgets the forces it has kept."""
        context.setParameter(self.parameter, 1.0 - context.getParameter(self.parameter))  # an equal one goes unheard

    def values(self, context: openmm.Context) -> SeenValues:
        """CVs and bias at the positions that a Context has now.

        Raises:
            NonFiniteError: if a CV or its gradient is not finite.
            BackendError: if the Context's System has not this force.
        """
        self.latest = None
        try:
            # Not the energy: with it comes the kinetic one, for which a CustomIntegrator draws random numbers.
            context.getState(forces=True, groups={self.group})
        finally:
            self.check()
        if self.latest is None:
            raise BackendError("the Context did not evaluate the BiasForce: `add_to` the System before it is made")
        return self.latest

    def check(self) -> None:
        """Raise the error that a force call met, if one did: OpenMM would lose its type."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def warm_up(self, positions: np.ndarray, box_vectors: np.ndarray | None) -> None:
        """Evaluate a few times at (num_particles, 3) nm, so that later calls at the same positions agree exactly."""
        read = torch.from_numpy(np.ascontiguousarray(positions[self.read_atoms], dtype=np.float64))
        box = torch.from_numpy(np.array(box_vectors, np.float64)) if self.periodic else None
        for _ in range(_WARM_UP_CALLS):
            self.evaluate(read, box)
        self.latest = None
        self.check()

    def evaluate(self, read: Tensor, box_vectors: Tensor | None) -> tuple[float, Tensor]:
        """Called by the force: kJ/mol, and kJ/mol/nm on `read_atoms`, of their positions (num_read, 3) nm."""
        forces = torch.zeros_like(read)
        try:
            module = self._on(read.device)
            with torch.inference_mode(False), torch.enable_grad():
                places, box = module.places(read, box_vectors)
                places.requires_grad_(True)
                outputs = module.values(places, box)[self._chosen.to(read.device)]
                values = outputs.detach().double().cpu().numpy()
                energy, slope = self.potential.value_and_gradient(values)
                direction = torch.from_numpy(slope).to(outputs)
                (gradient,) = torch.autograd.grad([outputs], [places], [direction])
            if not (np.isfinite(values).all() and bool(torch.isfinite(gradient).all())):
                raise NonFiniteError(
                    f"the CVs are {values.tolist()}, or their gradient is not finite: atoms overlap, or the simulation "
                    "has blown up; look at the last good frame, or take a lower bias"
                )
            forces[: self.num_selected] = gradient.to(read.dtype) * -self._per_nm
            self.latest = SeenValues(values, energy)
            return energy, forces
        except Exception as error:  # thrown through OpenMM it would lose its type, or end the process
            self._error = self._error or error
            return 0.0, forces

    def _on(self, device: torch.device) -> Any:
        if str(device) not in self._modules:
            moved = torch.jit.script(self._module.to(device))
            self._modules[str(device)] = torch.jit.freeze(moved, ["places", "values"])
        return self._modules[str(device)]


def bias_force(
    cv: LearnedCV,
    topology: Any,
    potential: BiasPotential,
    outputs: tuple[int, ...] | None = None,
    backend: Backend | str = Backend.AUTO,
    periodic: bool | None = None,
    group: int = 30,
) -> BiasForce:
    """A bias along outputs of a learned CV as one Force.

    ```python
    bias = bias_force(cv, topology, MetadynamicsBias(...))
    bias.add_to(system)
    ...
    simulation.step(500)
    bias.potential.deposit(bias.values(simulation.context).values)
    bias.changed(simulation.context)
    ```

    Args:
        outputs: of the CV, counted from 0; None: all of them.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        periodic: whether the System is periodic; by default, whether the topology has box vectors.
        group: the force group, of its own.
    Raises:
        SpecError: for an output or a group that cannot be.
        TopologyError: if the CV was learned for another topology.
        BackendError: if the backend is unknown or does not work here.
    """
    chosen = tuple(range(cv.num_outputs)) if outputs is None else tuple(outputs)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= output < cv.num_outputs for output in chosen):
        raise SpecError(f"outputs are {chosen}: give each once, of {cv.num_outputs} counted from 0")
    if not 0 <= group <= 31:
        raise SpecError(f"the force group is {group}: give one from 0 to 31 that no other force has")
    if periodic is None:
        periodic = topology.getPeriodicBoxVectors() is not None
    return BiasForce(cv, topology, potential, chosen, chosen_backend(backend), periodic, group)


def _find(number: int) -> BiasForce:
    found = _forces.get(number)
    if found is None:
        raise BackendError(
            f"there is no BiasForce number {number} in this process: keep the object that bias_force returned, and "
            "make it anew after reading a System from XML"
        )
    return found


def _evaluate(read: Tensor, box_vectors: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Energy and forces of a BiasForce; box vectors (3, 3) or (0, 3)."""
    energy, forces = _find(number).evaluate(read, box_vectors if box_vectors.size(0) == 3 else None)
    return read.new_full((), energy), forces


_library = torch.library.Library("openmm_gnn_bias", "DEF")  # torch.library.custom_op would load the compiler
_library.define("evaluate(Tensor positions, Tensor box_vectors, int number) -> (Tensor, Tensor)")
_library.impl("evaluate", _evaluate, "CompositeImplicitAutograd")  # others run below autograd, where none is recorded


class _BiasModule(nn.Module):
    """What TorchForce calls."""

    atoms: Tensor

    def __init__(self, number: int, atoms: np.ndarray, num_particles: int) -> None:
        super().__init__()
        self.number = number
        self.num_particles = num_particles
        self.register_buffer("atoms", torch.from_numpy(atoms.copy()))

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces."""
        if positions.size(0) != self.num_particles:
            raise ValueError(f"{positions.size(0)} positions came to a BiasForce of {self.num_particles} particles")
        box = torch.empty((0, 3), dtype=positions.dtype) if box_vectors is None else box_vectors
        with torch.no_grad():
            read = positions.index_select(0, self.atoms)
            energy, forces = torch.ops.openmm_gnn_bias.evaluate(read, box, self.number)
            return energy, torch.zeros_like(positions).index_copy(0, self.atoms, forces)


class _BiasComputation:
    """What PythonForce calls."""

    def __init__(self, number: int, periodic: bool) -> None:
        self.number, self.periodic = number, periodic

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        positions = state.getPositions(asNumpy=True)._value
        box = torch.from_numpy(np.array(state.getPeriodicBoxVectors(asNumpy=True)._value)) if self.periodic else None
        force = _find(self.number)
        energy, read_forces = force.evaluate(torch.from_numpy(positions[force.read_atoms]), box)
        forces = np.zeros_like(positions)
        forces[force.read_atoms] = read_forces.numpy()
        return energy, forces
