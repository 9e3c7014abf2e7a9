"""Forces from learned CVs: one CV as an energy, and a bias along several.

OpenMM's CustomCVForce asks for the gradient of each CV: those of one learned CV share an evaluation, see
`forces.shared_cv`, and cost one forward pass together, and a backward pass for each. In a `BiasForce` the energy is
V(s(x)) of all CVs s together, and the forces are -(dV/ds) . ds/dx, which costs one backward pass however many CVs there
are. The bias V is an object in Python that changes while the simulation runs, see `forces.python_call`; the networks
run there too, from one place for both backends. OpenMM may have kept the forces of the positions when the bias changes:
`changed` says so.
"""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import openmm
import torch
from torch import Tensor

from openmm_gnn.base.errors import BackendError, NonFiniteError, SpecError
from openmm_gnn.features.learned_cv import LearnedCV, load_learned_cv
from openmm_gnn.forces.backends import Backend, chosen_backend, is_periodic, make_force
from openmm_gnn.forces.modules.cv_evaluation import CVEvaluation, cv_evaluation
from openmm_gnn.forces.modules.cv_module import CVModule, check_output
from openmm_gnn.forces.python_call import PythonCall
from openmm_gnn.forces.shared_cv import shared_cv

_WARM_UP_CALLS = 4
"""TorchScript rewrites a module in its first calls, and its last digits with it: a restart must not see that."""


def cv_force(
    cv: LearnedCV | str | os.PathLike[str],
    topology: Any,
    output: int = 0,
    backend: Backend | str = Backend.AUTO,
    periodic: bool | openmm.System | None = None,
    allow_jumps: bool = False,
) -> Any:
    """An openmm.Force whose energy in kJ/mol is one output of a learned CV, with exact forces.

    ```python
    cv = load_learned_cv("cv.safetensors")
    low, high = cv.ranges.minimum[0], cv.ranges.maximum[0]
    variable = BiasVariable(cv_force(cv, topology), low, high, biasWidth=0.1)
    metadynamics = Metadynamics(system, [variable], 300, 10, 1.0, 500)
    ```

    Forces of several outputs share one evaluation of the networks, in any of OpenMM's samplers and in as many Contexts
    and threads as there are: the first Force that is asked at some positions computes what the others need there. Each
    has a gradient of its own, which OpenMM asks for; a `BiasForce` needs one for all.

    OpenMM's Metadynamics has no bias outside the variable's range: keep walls there, or use `openmm-gnn simulate
    --bias`, which has them.

    Args:
        cv: a learned CV, or the path of one.
        topology: the openmm.app.Topology of the System the force is added to.
        output: which of the CV's outputs, counted from 0.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        periodic: whether the System is periodic: True, False, or the System itself; by default, whether the topology
            has box vectors.
        allow_jumps: take a CV whose encoder is not continuous, too.
    Raises:
        SpecError: if there is no such output, or the CV jumps.
        TopologyError: if the CV was learned for another topology.
        BackendError: if the backend is unknown or does not work here.
    """
    chosen = chosen_backend(backend)
    cv = load_learned_cv(cv)
    if not allow_jumps:
        cv.check_continuous()
    check_output(cv, output)
    module = shared_cv(CVModule(cv, topology)).output_module(output)
    return make_force(module, "CVForce", is_periodic(topology, periodic, cv.cutoff_nm), chosen)


def chosen_outputs(cv: LearnedCV, outputs: tuple[int, ...] | None) -> tuple[int, ...]:
    """These outputs of a CV; all of them for None.

    Raises:
        SpecError: if there is no such output, or one is given twice.
    """
    chosen = tuple(range(cv.num_outputs)) if outputs is None else tuple(outputs)
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= output < cv.num_outputs for output in chosen):
        raise SpecError(f"outputs are {chosen}: give each once, of {cv.num_outputs} counted from 0")
    return chosen


class BiasPotential(Protocol):
    """A bias as the force sees it."""

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """kJ/mol, and (D,) kJ/mol per unit of each CV, at the CVs' values (D,)."""
        ...


@dataclass(frozen=True)
class SeenValues:
    """Values of the CVs and of the bias at the positions of a force call."""

    values: np.ndarray
    """(D,) values of the CVs."""
    energy: float
    """Energy of the bias, kJ/mol."""
    forces: Tensor
    """(num_read, 3) forces of the bias, kJ/mol/nm, on any device."""

    @property
    def largest_force(self) -> float:
        """Largest force of the bias on an atom, kJ/mol/nm."""
        return float(torch.linalg.vector_norm(self.forces, dim=1).max())


class BiasForce(PythonCall):
    """A bias along several outputs of a learned CV.

    ```python
    bias = BiasForce(cv, topology, MetadynamicsBias(...))
    bias.add_to(system)
    ...
    simulation.step(500)
    bias.potential.deposit(bias.values(simulation.context).values)
    bias.changed(simulation.context)
    ```
    """

    def __init__(
        self,
        cv: LearnedCV,
        topology: Any,
        potential: BiasPotential,
        outputs: tuple[int, ...] | None = None,
        backend: Backend | str = Backend.AUTO,
        periodic: bool | openmm.System | None = None,
        group: int = 30,
        allow_jumps: bool = False,
    ) -> None:
        """
        Args:
            outputs: which of the CV's outputs, counted from 0; None: all of them.
            backend: "torchforce", "pythonforce", or "auto": the first of these that works.
            periodic: whether the System is periodic: True, False, or the System itself; by default, whether the
                topology has box vectors.
            group: the force group, of its own.
            allow_jumps: take a CV whose encoder is not continuous, too.
        Raises:
            SpecError: for an output or a group that cannot be, or a CV that jumps.
            TopologyError: if the CV was learned for another topology.
            BackendError: if the backend is unknown or does not work here.
        """
        if not allow_jumps:
            cv.check_continuous()
        backend, uses_box = chosen_backend(backend), is_periodic(topology, periodic, cv.cutoff_nm)
        module = CVModule(cv, topology)
        super().__init__(module.read_atoms.numpy().copy(), module.num_particles, group)
        self.potential, self.outputs, self.periodic = potential, chosen_outputs(cv, outputs), uses_box
        self.latest: SeenValues | None = None
        """Values at the last force call; None before the first."""
        self._cv_module = module.eval()
        # Between the values and the forces of a step an evaluation keeps what is theirs; Contexts may step in threads.
        self._lock = threading.Lock()
        # Made for the CPU at once, and for a GPU at the first call from there.
        cpu = torch.device("cpu")
        self._evaluations = {cpu: cv_evaluation(module, self.outputs, cpu)}
        self.force = make_force(self.module, "BiasForce", uses_box, backend, group=group)

    @property
    def parameter(self) -> str:
        """The Context's parameter by which OpenMM learns of a change."""
        return f"openmm_gnn_bias_changes_{self.group}"

    def add_to(self, system: openmm.System) -> None:
        """Add the force, and an empty one that brings the parameter of `changed`."""
        super().add_to(system)
        bell = openmm.CustomBondForce("0")
        bell.addGlobalParameter(self.parameter, 0.0)
        bell.setForceGroup(self.group)
        bell.setName("BiasChanges")
        system.addForce(bell)

    def changed(self, context: openmm.Context) -> None:
        """The bias is another one from now on: the Context forgets the forces it has kept."""
        # OpenMM passes over a value that is the same as before.
        context.setParameter(self.parameter, 1.0 - context.getParameter(self.parameter))

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

    def steepness(
        self, positions: np.ndarray, box_vectors: np.ndarray | None, inverse_masses: np.ndarray
    ) -> np.ndarray:
        """(D,) mass-weighted lengths of the CVs' gradients, in 1 / (nm sqrt(Da)).

        sqrt(sum over atoms of |ds/dx|^2 / mass): times sqrt(kT) it is how fast a CV moves at thermal velocities, in
        its unit per ps.

        Args:
            positions: (num_particles, 3) nm.
            box_vectors: (3, 3) nm, of a periodic force.
            inverse_masses: (num_particles,) 1 / Da; 0 for what does not move.
        Raises:
            NonFiniteError: if a gradient is not finite.
        """
        cv = self._on(torch.device("cpu"))
        read = torch.from_numpy(np.array(positions[self.read_atoms], np.float64))
        box = torch.from_numpy(np.array(box_vectors, np.float64)) if self.periodic else None
        with self._lock:
            values = cv.values(read, box)
            lengths = np.square(cv.forces(np.eye(len(self.outputs))).numpy()).sum(axis=2)
        if not np.isfinite(lengths).all():
            raise NonFiniteError(
                f"the gradients of the CVs are not finite at {values.tolist()}: atoms overlap, or the simulation has "
                "blown up; look at the last good frame, or take a lower bias"
            )
        return np.asarray(np.sqrt(lengths @ inverse_masses[self.read_atoms]))

    def warm_up(self, positions: np.ndarray, box_vectors: np.ndarray | None) -> None:
        """Evaluate a few times at (num_particles, 3) nm, so that later calls at the same positions agree exactly."""
        read = torch.from_numpy(np.ascontiguousarray(positions[self.read_atoms], dtype=np.float64))
        box = torch.from_numpy(np.array(box_vectors, np.float64)) if self.periodic else None
        for _ in range(_WARM_UP_CALLS):
            self.called(read, box)
        self.latest = None
        self.check()

    def evaluate(self, read: Tensor, box_vectors: Tensor | None) -> tuple[float, Tensor]:
        """Energy of the bias and its forces, as `PythonCall.evaluate`."""
        with self._lock:
            cv = self._on(read.device)
            values = cv.values(read, box_vectors)
            energy, slope = self.potential.value_and_gradient(values)
            forces = cv.forces(slope[None])[0]
        # Each call of NumPy or PyTorch costs microseconds of a step: the sum is not finite where a number is not.
        if not (math.isfinite(float(forces.sum())) and all(map(math.isfinite, values.tolist()))):
            raise NonFiniteError(
                f"the CVs are {values.tolist()}, or their gradient is not finite: atoms overlap, or the simulation "
                "has blown up; look at the last good frame, or take a lower bias"
            )
        self.latest = SeenValues(values, energy, forces)
        return energy, forces

    def _on(self, device: torch.device) -> CVEvaluation:
        found = self._evaluations.get(device)
        if found is None:
            found = self._evaluations[device] = cv_evaluation(self._cv_module, self.outputs, device)
        return found
