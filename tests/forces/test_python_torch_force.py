"""A PythonTorchForce hands over positions as a tensor: the same energy and forces as by any other backend."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import openmm
import pytest
import torch
from exported_forces import Example, bare, evaluated, example
from untrained_networks import untrained

from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.forces.python_force import TensorComputation, python_force
from openmm_gnn.md.torch_plugin import python_torch_force


def small() -> Example:
    argon = example("gamd-argon").start
    return Example(untrained(), bare(argon.topology, argon.positions, argon.box_vectors))


def test_its_callable_gives_what_the_other_backend_gives_also_once_it_is_unpickled() -> None:
    one = small()
    right_energy, right_forces = evaluated(one.system(available_backends()[0]), one.start.positions)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(one.start.system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(one.start.positions)
    state = context.getState(positions=True)
    call = TensorComputation(script_module(one.network, one.start.topology), periodic=True)
    for computation in (call, pickle.loads(pickle.dumps(call))):
        energy, forces = computation(state, torch.from_numpy(one.start.positions))
        assert forces.dtype == torch.float64
        assert float(energy) == right_energy == 0.0
        assert np.abs(forces.numpy() - right_forces).max() <= 1e-6 * np.abs(right_forces).max()


def test_errors_of_the_network_are_in_words() -> None:
    one = small()
    call = TensorComputation(script_module(one.network, one.start.topology), periodic=False)
    with pytest.raises(RuntimeError, match="3 positions came in, the module was made for 258 particles"):
        call(None, torch.zeros(3, 3))


def test_it_is_used_where_openmmtorch_has_one() -> None:
    if python_torch_force() is None:
        pytest.skip("no openmmtorch here has a PythonTorchForce: it came after 1.5")
    one = small()
    force = python_force(script_module(one.network, one.start.topology), periodic=True)
    assert type(force).__name__ == "PythonTorchForce"
    system = copy.deepcopy(one.start.system)
    system.addForce(force)
    right = evaluated(one.system(available_backends()[0]), one.start.positions)[1]
    found = evaluated(openmm.XmlSerializer.clone(system), one.start.positions)[1]
    assert np.abs(found - right).max() <= 1e-6 * np.abs(right).max()
