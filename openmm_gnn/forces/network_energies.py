"""Which energies and pressures the networks in a System have, and a refusal of what asks for those they have not.

A network that predicts forces directly adds an energy of zero to its System. A Monte Carlo barostat then accepts every
change of the volume, and a minimiser or a potential energy in a log mean nothing. The pressure of an energy network is
not fitted: its training sees the forces on atoms, at the volumes of its data, and no virial.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openmm

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.force import FORCE_SPECS
from openmm_gnn.md.simulation_system import ForcePart, part_of


@dataclass(frozen=True)
class NetworkInSystem:
    """A force model that a System computes."""

    has_energy: bool
    num_atoms: int
    """How many atoms it acts on."""
    made_by_label: bool
    """Whether it was trained on forces that `openmm-gnn label` computed, all of a System's or all non-bonded ones."""


def networks_in(system: openmm.System) -> list[NetworkInSystem]:
    """The force models of a System; those that `accelerate` put in cancel, and are left out."""
    found: list[NetworkInSystem] = []
    for force in system.getForces():
        if isinstance(force, openmm.CustomCVForce):
            inner = [force.getCollectiveVariable(k) for k in range(force.getNumCollectiveVariables())]
            negated = [network for variable in inner for network in _network_of(variable)]
            if force.getEnergyFunction() == "-network":
                del found[len(found) - len(negated) :]
            else:
                found += negated
        else:
            found += _network_of(force)
    return found


def _network_of(force: openmm.Force) -> Iterator[NetworkInSystem]:
    if type(force).__name__ not in ("Force", "TorchForce", "PythonForce"):  # "Force" is a plugin's, read from a System
        return
    from openmm_gnn.forces import python_force, torch_force

    module: Any = torch_force.module_of(force) or python_force.module_of(force)
    document = json.loads(module.spec_json) if module is not None else {}
    if document.get("kind") in {spec.kind for spec in FORCE_SPECS}:
        spec = document["spec"]
        entries = spec["metadata"].get("data")
        labelled = isinstance(entries, list) and all("thermostat" in entry for entry in entries)
        yield NetworkInSystem(spec.get("conservative", False), len(module.atoms), labelled)


def check_networks(system: openmm.System, network_pressure: bool = False) -> None:
    """Whether what a System asks of its networks exists, and no force stands beside a network that stands for it.

    Args:
        network_pressure: accept the pressure of networks with an energy.
    Raises:
        SpecError: if there is a barostat, and a network without energy or, unless accepted, one with energy; or if
            non-bonded forces are beside a network of all atoms that was trained on such forces.
    """
    networks = networks_in(system)
    barostats = [type(force).__name__ for force in system.getForces() if "Barostat" in type(force).__name__]
    if barostats and any(not network.has_energy for network in networks):
        raise SpecError(
            f"{barostats[0]} needs energies, and a network that predicts forces directly has none: run at constant "
            "volume, or train with --conservative"
        )
    if barostats and networks and not network_pressure:
        raise SpecError(
            f"{barostats[0]} acts on the pressure, and no training fits that of a network: the shipped gamd-tip3p has "
            "500 bar too much, and its water becomes 3 % too light. Run at constant volume, or accelerate the System's "
            "own forces (--accelerate); where you have checked the network's pressure, give --network-pressure"
        )
    others = [
        type(force).__name__
        for force in system.getForces()
        if part_of(force) is ForcePart.NONBONDED and not isinstance(force, openmm.CustomCVForce)
        if not list(_network_of(force))
    ]
    massive = sum(system.getParticleMass(k)._value > 0 for k in range(system.getNumParticles())) if networks else 0
    if others and any(network.num_atoms >= massive and network.made_by_label for network in networks):
        raise SpecError(
            f"the System has {others[0]} beside a network that was trained on such forces of all its atoms, so they "
            "count twice: remove the force that the network stands for"
        )
