"""One learned CV as an openmm.Force whose energy is its value: for CustomCVForce and openmm.app.Metadynamics."""

from __future__ import annotations

import os
from typing import Any

from openmm_gnn.features.learned_cv import LearnedCV, load_learned_cv
from openmm_gnn.forces import python_force, torch_force
from openmm_gnn.forces.gamd_force import Backend, chosen_backend
from openmm_gnn.forces.modules.cv_module import cv_energy_module


def cv_force(
    cv: LearnedCV | str | os.PathLike[str],
    topology: Any,
    output: int = 0,
    backend: Backend | str = Backend.AUTO,
    periodic: bool | None = None,
) -> Any:
    """An openmm.Force whose energy in kJ/mol is one output of a learned CV, with exact forces.

    ```python
    cv = load_learned_cv("cv.safetensors")
    low, high = cv.ranges.minimum[0], cv.ranges.maximum[0]
    variable = BiasVariable(cv_force(cv, topology), low, high, biasWidth=0.1)
    metadynamics = Metadynamics(system, [variable], 300, 10, 1.0, 500)
    ```

    OpenMM's Metadynamics has no bias outside the variable's range: keep walls there, or use `openmm-gnn simulate
    --bias`, which has them. In a CustomCVForce each output costs a network of its own; `bias_force` needs one for all.

    Args:
        cv: a learned CV, or the path of one.
        topology: the openmm.app.Topology of the System the force is added to.
        output: which of the CV's outputs, counted from 0.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        periodic: whether the System is periodic; by default, whether the topology has box vectors.
    Raises:
        SpecError: if there is no such output.
        TopologyError: if the CV was learned for another topology.
        BackendError: if the backend is unknown or does not work here.
    """
    chosen = chosen_backend(backend)
    loaded = cv if isinstance(cv, LearnedCV) else load_learned_cv(cv)
    module = cv_energy_module(loaded, topology, output)
    if periodic is None:
        periodic = topology.getPeriodicBoxVectors() is not None
    if chosen is Backend.TORCHFORCE:
        force = torch_force.torch_force(module, periodic)
    else:
        force = python_force.python_force(module, periodic)
    force.setName("CVForce")
    return force
