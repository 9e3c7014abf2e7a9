"""Bias along a learned CV: a rare turn of a peptide is driven, and the weights of the frames take the bias out again.

You learn: a LearnedCV is one file with encoder and network, written by `openmm-gnn analyze` or shipped; it knows the
range it was trained in; `simulate` drives a run over that range with OPES; what it recorded gives every frame its
weight, and the weights give a free energy. Without a bias, phi turns over once in about 40 ns.

Takes 10 minutes on 2 CPU cores; with --short 10 seconds. Run: python examples/08_learned_bias.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import mdtraj
import numpy as np
import torch

from openmm_gnn import (
    BiasSettings,
    ComputeSettings,
    RunSettings,
    effective_frames,
    frame_log_weights,
    load_learned_cv,
    load_system,
    read_bias_records,
    reweighted_free_energy,
    simulate,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="500 steps in place of 150,000")
    steps = 500 if parser.parse_args().short else 150_000
    torch.set_num_threads(1)

    cv = load_learned_cv("alanine-dipeptide")
    low, high = cv.ranges.minimum[0], cv.ranges.maximum[0]
    print(f"the slowest of {cv.num_outputs} variables runs from {low:.2f} to {high:.2f}")
    peptide = load_system("alanine-dipeptide")
    settings = RunSettings(steps=steps, stride=50, equilibration=1.0)
    bias = BiasSettings(outputs=(0,), stride=250, barrier=35.0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "biased"
        simulate(peptide, run, settings, compute=ComputeSettings("Reference"), bias_cv="alanine-dipeptide", bias=bias)
        frames = mdtraj.load(str(run / "trajectory.dcd"), top=str(run / "topology.pdb"))
        phi = mdtraj.compute_phi(frames)[1][:, 0]
        weights = frame_log_weights(run)
        print(f"{len(weights)} frames, worth {effective_frames(weights):.0f} once the bias is taken out")
        line = reweighted_free_energy(run, np.degrees(phi), bins=24)
        for degrees, energy in zip(line.centers, line.values, strict=True):
            print(f"phi {degrees:5.0f}: " + (f"{energy:5.1f} kJ/mol" if np.isfinite(energy) else "not seen"))
        turns = int((np.diff(np.sign(phi[np.abs(phi) < 2])) != 0).sum())
        print(f"phi turned over {turns} times in {steps * peptide.time_step_ps / 1000:.3f} ns")
        records = read_bias_records(run)
        covered = np.ptp(records["values"][:, 0]) / (high - low)
        print(f"the run covered {100 * covered:.1f} % of the variable's range; it should be all of it in the long mode")


if __name__ == "__main__":
    main()
