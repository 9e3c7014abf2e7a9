"""A trained network as an openmm.Force, and whether it goes together with a System, asked before the first step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.boxes import box_width
from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.forces.backends import Backend, chosen_backend, is_periodic, make_force
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.md.simulation_system import ForcePart, part_of
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.weights import load_model

if TYPE_CHECKING:
    import openmm
    from openmm import app

_COUNTS_OF_TERMS = ("getNumBonds", "getNumAngles", "getNumTorsions", "getNumTorsionTorsions", "getNumParticles")


def gamd_force(
    model: ForceModel | str | os.PathLike[str],
    topology: Any,
    backend: Backend | str = Backend.AUTO,
    periodic: bool | openmm.System | None = None,
    atoms: Sequence[int] | None = None,
    device: str = "cpu",
    cuda_graphs: bool = False,
) -> Any:
    """An openmm.Force with the forces that a network predicts.

    Its energy is that of the network where `model.conservative`, and the forces are its gradient. Networks that predict
    forces directly have no energy: the Force is called GAMDForceWithoutEnergy, and zero stands for it. With it the
    potential energy of a State or a log, minimisers, Monte Carlo barostats, replica exchange and accelerated molecular
    dynamics (aMD) mean nothing. A barostat then accepts every change of the volume; the network warns of the first one
    that it sees on the CPU.

    A System with this Force can be written as XML; `load_system` reads it in any process.

    No training fits the pressure of a network, with an energy or without: see `network_energies.check_networks`.

    Args:
        model: a network, or a name or path for `load_model`.
        topology: the openmm.app.Topology of the System the force is added to.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        periodic: whether the System is periodic: True, False, or a System with forces that say so; by default,
            whether the topology has box vectors.
        atoms: indices of those the network sees and moves; by default all that have an element.
        device: for PythonForce, where the network runs: "cpu", "cuda" or "cuda:N"; TorchForce follows the platform.
        cuda_graphs: replay the step as one CUDA graph, which saves its launches; `cuda_module.graph_reports` tells
            whether PythonForce does, and a TorchForce on the CUDA platform does it or fails in words.
    Raises:
        TopologyError: if the topology has an element the network does not know.
        BackendError: if the backend is unknown or does not work here.
    """
    chosen = chosen_backend(backend)
    network = load_model(model)
    module = script_module(network, topology, atoms, watches_box=not network.conservative)
    name = "GAMDForce" if network.conservative else "GAMDForceWithoutEnergy"
    uses_box = is_periodic(topology, periodic, network.spec.neighbors.cutoff)
    return make_force(module, name, uses_box, chosen, device, cuda_graphs)


def has_bonded_terms(force: openmm.Force) -> bool:
    """Whether a Force is bonded and not empty, as the bonds of rigid water are."""
    if part_of(force) is not ForcePart.BONDED:
        return False
    counts = [getattr(force, name)() for name in _COUNTS_OF_TERMS if hasattr(force, name)]
    return not counts or any(counts)


def trained_on_nonbonded(model: ForceModel) -> bool | None:
    """Whether the labels of a network were the non-bonded forces alone; None where its metadata do not say."""
    data = model.spec.metadata.get("data")
    entries = data if isinstance(data, list) else []
    labels = {entry["forces"] for entry in entries if isinstance(entry, dict) and entry.get("forces")}
    return labels == {"nonbonded"} if labels else None


def check_trained_on_nonbonded(
    model: ForceModel, bonded: Sequence[openmm.Force], atoms: Sequence[int] | None = None
) -> None:
    """Refuse a network beside bonded forces that it has learned.

    Args:
        bonded: bonded forces that stay in the System.
        atoms: indices of those that the network sees; None: all.
    Raises:
        SpecError: if the network has learned bonded forces, and there are some between its atoms.
    """
    if trained_on_nonbonded(model) is False and any(_acts_within(force, atoms) for force in bonded):
        raise SpecError(
            "the model was trained on all forces of its System, and this System has bonded ones, which would count "
            "twice: train on data of `openmm-gnn label --forces nonbonded`"
        )


def _acts_within(force: openmm.Force, atoms: Sequence[int] | None) -> bool:
    """Whether a bonded force has a term of these atoms alone; one whose terms are not known counts as one that has."""
    if atoms is None:
        return has_bonded_terms(force)
    for name, (count, get, size) in _TERMS.items():
        if type(force).__name__ == name:
            chosen = set(atoms)
            terms = (getattr(force, get)(k)[:size] for k in range(getattr(force, count)()))
            return any(chosen.issuperset(term) for term in terms)
    return has_bonded_terms(force)


_TERMS = {
    "HarmonicBondForce": ("getNumBonds", "getBondParameters", 2),
    "CustomBondForce": ("getNumBonds", "getBondParameters", 2),
    "HarmonicAngleForce": ("getNumAngles", "getAngleParameters", 3),
    "CustomAngleForce": ("getNumAngles", "getAngleParameters", 3),
    "PeriodicTorsionForce": ("getNumTorsions", "getTorsionParameters", 4),
    "RBTorsionForce": ("getNumTorsions", "getTorsionParameters", 4),
    "CustomTorsionForce": ("getNumTorsions", "getTorsionParameters", 4),
}
"""Bonded forces whose terms begin with their atoms: how many there are, how they are asked for, and atoms of each."""


def check_model_fits(model: ForceModel, system: openmm.System, topology: app.Topology) -> None:
    """Whether topology, System and box suit each other and the network.

    The neighbour list is right in a box of any width: several images of one atom, and of the atom itself. The width
    matters to networks that know bonds alone: there any image of a bonded atom within the cutoff counts as bonded.

    Raises:
        TopologyError: if the topology has another number of atoms, or the box is too narrow.
    """
    if topology.getNumAtoms() != system.getNumParticles():
        raise TopologyError(
            f"the topology has {topology.getNumAtoms()} atoms, the System {system.getNumParticles()} particles: give "
            "the topology that the System was made from, virtual sites included"
        )
    cutoff = model.spec.neighbors.cutoff
    if model.spec.use_bonds and system.usesPeriodicBoundaryConditions():
        box = np.array([vector._value for vector in system.getDefaultPeriodicBoxVectors()])
        width = float(box_width(box))
        if width < 2 * cutoff:
            raise TopologyError(
                f"the box is {width:.3f} nm wide, less than twice the model's cutoff of {cutoff} nm, and images of "
                "bonded atoms would count as bonded: take a larger box, or a model without bonds"
            )
