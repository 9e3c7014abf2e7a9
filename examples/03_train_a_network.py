"""From an OpenMM System to a network that predicts its forces: label, train, evaluate.

You learn: the three steps behind `openmm-gnn label`, `train` and `evaluate`, and why a whole trajectory is held out:
frames of one run resemble each other, so errors on them flatter.

Takes 3 minutes on 2 CPU cores; with --short half a minute, and the network is then poor. Data and weights go to
--out. Run: python examples/03_train_a_network.py
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from openmm_gnn import (
    GAMDSpec,
    LabelSettings,
    NeighborSpec,
    TrainingSettings,
    evaluate,
    label,
    load_system,
    train,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="few frames and steps")
    parser.add_argument("--out", type=Path, default=Path("example-03"), help="directory of data and weights")
    options = parser.parse_args()
    frames, equilibration_ps, num_steps = (20, 1.0, 50) if options.short else (100, 20.0, 2000)

    # Seeds 1 and 2 are for training, 3 chooses the best weights, 4 is kept for the end.
    data = options.out / "data"
    labels = LabelSettings(seeds=(1, 2, 3, 4), frames=frames, equilibration=equilibration_ps)
    label(load_system("argon"), data, labels)

    # A small network; what it is, is written here and nowhere else, and saved with its weights.
    network = partial(GAMDSpec, NeighborSpec(cutoff=0.75), width=32, num_layers=1, min_distance=0.25)
    settings = TrainingSettings(
        train_seeds=(1, 2),
        validation_seeds=(3,),
        validation_frames=20,
        num_steps=num_steps,
        validate_every=num_steps // 4,
        warmup_steps=num_steps // 10,
    )
    bundle = train([data], options.out / "network", network, settings)

    errors = evaluate(bundle, data, seeds=[4])
    print(f"{errors.num_frames} held-out frames, MAE {errors.mae:.3f} meV/angstrom")
    print(f"relative error of the forces: {100 * errors.relative_error:.2f} % (100 % would be no better than zero)")


if __name__ == "__main__":
    main()
