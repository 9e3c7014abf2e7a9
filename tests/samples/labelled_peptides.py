"""Peptides whose properties OpenMM has calculated: energies, charges and dipoles by amber14 and OBC2."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import ase
import ase.io
import numpy as np
import openmm
from openmm import unit

from openmm_gnn.md.implicit_solvent import in_implicit_solvent, with_hydrogens
from openmm_gnn.md.systems.peptides import Peptide, build_peptide


def labelled_peptide(sequence: str, num_frames: int, interval_ps: float = 0.4, seed: int = 0) -> list[ase.Atoms]:
    """Frames of a capped peptide at 500 K, each with these labels:

    `solvation` (kJ/mol) the energy of the OBC2 solvent and `potential` the whole; `bonded_charges` (e) of each atom;
    `charge_dipole` (e nm) of these charges.
    """
    generator = np.random.default_rng(seed)
    topology, positions = with_hydrogens(*build_peptide(Peptide(sequence), generator), generator)
    system = in_implicit_solvent(topology)
    charges = None
    for force in system.getForces():
        force.setForceGroup(int(isinstance(force, openmm.GBSAOBCForce)))
        if isinstance(force, openmm.NonbondedForce):
            charges = np.array([force.getParticleParameters(k)[0]._value for k in range(system.getNumParticles())])
    assert charges is not None
    integrator = openmm.LangevinMiddleIntegrator(500.0, 2.0, 0.002)
    integrator.setRandomNumberSeed(seed + 1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 100)
    context.setVelocitiesToTemperature(500.0, seed + 1)
    numbers = [atom.element.atomic_number for atom in topology.atoms()]
    frames = []
    for _ in range(num_frames):
        integrator.step(round(interval_ps / 0.002))
        places = context.getState(getPositions=True).getPositions(asNumpy=True)._value
        frame = ase.Atoms(numbers, 10 * places)
        frame.info["sequence"] = sequence
        for name, groups in (("solvation", {1}), ("potential", {0, 1})):
            energy = context.getState(getEnergy=True, groups=groups).getPotentialEnergy()
            frame.info[name] = energy.value_in_unit(unit.kilojoule_per_mole)
        frame.info["charge_dipole"] = charges @ places
        frame.arrays["bonded_charges"] = charges
        frames.append(frame)
    return frames


def write_labelled_peptides(path: Path, sequences: Iterable[str], num_frames: int) -> Path:
    """An extended XYZ file of all of them."""
    frames = []
    for seed, sequence in enumerate(sequences):
        frames += labelled_peptide(sequence, num_frames, seed=seed)
    ase.io.write(path, frames, format="extxyz")
    return path
