"""The shipped learned CV of alanine dipeptide: found by name, made by the command it names, and a turn of phi."""

from __future__ import annotations

import mdtraj
import numpy as np
import openmm
import pytest
import torch

from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.learned_cv import LEARNED_CVS, load_learned_cv
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.encoders.encoder import encoder_hash
from openmm_gnn.networks.weights import load_encoder, shipped_names

NAME = "alanine-dipeptide"


def relaxed_at(phi_degrees: float, psi_degrees: float) -> np.ndarray:
    """(22, 3) nm, alanine dipeptide with its dihedrals held there."""
    peptide = load_system(NAME)
    atoms = {(atom.residue.name, atom.name): atom.index for atom in peptide.topology.atoms()}
    names = [("ACE", "C"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "C"), ("NME", "N")]
    hold = openmm.CustomTorsionForce("1000 * (1 - cos(theta - angle))")
    hold.addPerTorsionParameter("angle")
    for first, degrees in ((0, phi_degrees), (1, psi_degrees)):
        hold.addTorsion(*[atoms[name] for name in names[first : first + 4]], [np.radians(degrees)])
    peptide.system.addForce(hold)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(peptide.system, openmm.LangevinMiddleIntegrator(300, 10, 0.001), platform)
    context.setPositions(peptide.start(1))
    openmm.LocalEnergyMinimizer.minimize(context)
    context.getIntegrator().step(500)
    positions = np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)
    trajectory = mdtraj.Trajectory(positions[None], mdtraj.Topology.from_openmm(peptide.topology))
    phi = np.degrees(mdtraj.compute_phi(trajectory)[1][0, 0])
    assert abs((phi - phi_degrees + 180) % 360 - 180) < 20
    return positions


def slow_variables(positions: np.ndarray) -> np.ndarray:
    cv, topology = load_learned_cv(NAME), load_system(NAME).topology
    featurizer = Featurizer("peptide-et", topology)
    tokens, places = featurizer.features(positions), featurizer.coordinates(positions)
    with torch.no_grad():
        return cv.network(torch.from_numpy(tokens)[None], torch.from_numpy(places)[None])[0].numpy()


def test_its_first_variable_tells_the_two_sides_of_phi_and_its_second_those_of_psi() -> None:
    left_extended, left_helical = slow_variables(relaxed_at(-80, 150)), slow_variables(relaxed_at(-80, -20))
    right = slow_variables(relaxed_at(60, 30))
    assert right[0] > 2 > 0.5 > max(left_extended[0], left_helical[0])
    assert abs(left_extended[1] - left_helical[1]) > 1


def test_it_is_of_the_named_system_and_of_the_shipped_encoder() -> None:
    cv = load_learned_cv(NAME)
    assert cv.topology_hash == Featurizer("peptide-et", load_system(NAME).topology).topology_hash
    assert cv.encoder_hash == encoder_hash(load_encoder("peptide-et"))
    assert len(cv.metadata["runs"]) == 6


def test_a_name_that_is_not_shipped_is_answered_with_those_that_are() -> None:
    with pytest.raises(FileNotFoundError, match=f"no-such-cv.*{shipped_names(LEARNED_CVS)[0]}"):
        load_learned_cv("no-such-cv")
