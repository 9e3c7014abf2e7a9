"""Alanine dipeptide biased along its learned variable, beside unbiased runs and beside a static bias on phi itself.

Turns of phi per ns, and free energies along phi in bins of 10 degrees, aligned at the lowest bin of negative phi; the
largest and the rms difference in the bins less than 10 kJ/mol above it. A turn goes from (-160, -40) to (20, 110)
degrees or back, so that recrossings of the saddle do not count.

    python benchmarks/studies/alanine_bias.py BIASED UNBIASED... [--static-ns 51]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mdtraj
import numpy as np
import openmm
from openmm import app

from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.kinetics.free_energy import effective_frames, frame_log_weights
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.runs.directory import RunDirectory

TEMPERATURE = 300.0
KT = BOLTZMANN_KJ_MOL_K * TEMPERATURE
EDGES = np.linspace(-np.pi, np.pi, 37)
NEGATIVE = EDGES[1:] < 1e-9
POPULATED_KJ_MOL = 10.0
FORGOTTEN = 0.15
"""Share of a biased run, from its start, in which the bias still grows fast."""
STEPS_PER_NS, STEPS_PER_FRAME = 250_000, 250
BIAS_FACTOR = 8.0


def phi_of(run: Path) -> np.ndarray:
    frames = mdtraj.load(str(run / "trajectory.dcd"), top=str(run / "topology.pdb"))
    return mdtraj.compute_phi(frames)[1][:, 0]


def turns(phi: np.ndarray) -> int:
    degrees = np.degrees(phi)
    side = np.where((degrees > -160) & (degrees < -40), -1, np.where((degrees > 20) & (degrees < 110), 1, 0))
    return int(np.count_nonzero(np.diff(side[side != 0])))


def free_energy(phi: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(36,) kJ/mol, zero at the lowest bin of negative phi; infinite where phi never was."""
    counts = np.histogram(phi, EDGES, weights=weights)[0]
    with np.errstate(divide="ignore"):
        energy = -KT * np.log(counts)
    return energy - energy[NEGATIVE].min()


def static_bias(ns: float, growing_ns: float = 10.0, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """phi and weights under the bias that well-tempered metadynamics on phi has reached, no longer growing."""
    peptide = load_system("alanine-dipeptide")
    atoms = {(atom.residue.name, atom.name): atom.index for atom in peptide.topology.atoms()}
    names = [("ACE", "C"), ("ALA", "N"), ("ALA", "CA"), ("ALA", "C")]
    torsion = openmm.CustomTorsionForce("theta")
    torsion.addTorsion(*[atoms[name] for name in names], [])
    variable = app.BiasVariable(torsion, -np.pi, np.pi, 0.25, True)
    metadynamics = app.Metadynamics(peptide.system, [variable], TEMPERATURE, BIAS_FACTOR, 0.8, 250)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, 1.0, 0.004)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(peptide.topology, peptide.system, integrator, platform)
    simulation.context.setPositions(peptide.start(seed))
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    metadynamics.step(simulation, int(growing_ns * STEPS_PER_NS))
    # OpenMM gives the free energy, -gamma / (gamma - 1) times the bias.
    bias = -np.array(metadynamics.getFreeEnergy()._value) * (BIAS_FACTOR - 1) / BIAS_FACTOR
    grid, seen = np.linspace(-np.pi, np.pi, len(bias)), []
    for _ in range(int(ns * STEPS_PER_NS / STEPS_PER_FRAME)):
        simulation.step(STEPS_PER_FRAME)
        seen.append(metadynamics.getCollectiveVariables(simulation)[0])
    phi = np.array(seen)
    return phi, np.exp(np.interp(phi, grid, bias) / KT)


def compare(name: str, biased: np.ndarray, reference: np.ndarray) -> None:
    populated = reference < POPULATED_KJ_MOL
    difference = np.abs(biased[populated] - reference[populated])
    right = -KT * np.log(np.exp(-reference / KT)[~NEGATIVE].sum() / np.exp(-reference / KT)[NEGATIVE].sum())
    rms = np.sqrt(np.square(difference).mean())
    print(
        f"from {name}: largest {difference.max():.2f}, rms {rms:.2f} kJ/mol; there right over left {right:.1f} kJ/mol"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("biased", type=Path)
    parser.add_argument("unbiased", type=Path, nargs="+")
    parser.add_argument("--static-ns", type=float, default=0.0, help="of the static bias on phi; 0: leave it out")
    arguments = parser.parse_args()

    runs = [phi_of(run) for run in arguments.unbiased]
    lengths_ns = [
        len(phi) * RunDirectory(run).settings().frame_interval_ps / 1000
        for phi, run in zip(runs, arguments.unbiased, strict=True)
    ]
    plain = sum(map(turns, runs)) / sum(lengths_ns)
    print(f"unbiased: {sum(map(turns, runs))} turns in {sum(lengths_ns):.1f} ns, {plain:.4f} per ns")
    phi = phi_of(arguments.biased)
    log_weights = frame_log_weights(arguments.biased)
    ns = len(phi) * RunDirectory(arguments.biased).settings().frame_interval_ps / 1000
    print(
        f"biased: {turns(phi)} turns in {ns:.2f} ns, {turns(phi) / ns:.1f} per ns, {turns(phi) / ns / plain:.0f} times"
    )
    first = int(FORGOTTEN * len(phi))
    phi, log_weights = phi[first : len(log_weights)], log_weights[first : len(phi)]
    weights = np.exp(log_weights - log_weights.max())
    biased = free_energy(phi, weights)
    right = -KT * np.log(weights[phi > 0].sum() / weights[phi < 0].sum())
    print(f"{effective_frames(log_weights):.0f} effective frames; right basin over left {right:.1f} kJ/mol")
    compare("the unbiased runs", biased, free_energy(np.concatenate(runs), np.ones(sum(map(len, runs)))))
    if arguments.static_ns > 0:
        compare("a static bias on phi", biased, free_energy(*static_bias(arguments.static_ns)))


if __name__ == "__main__":
    main()
