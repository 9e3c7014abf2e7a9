"""From an OpenMM System to a network that predicts its forces: label, train, evaluate.

You learn: the three steps behind `openmm-gnn label`, `train` and `evaluate`, and why a whole trajectory is held out:
frames of one run resemble each other, so errors on them flatter.

Takes 3 minutes on 2 CPU cores; with --short half a minute, and the network is then poor. Data and weights go to
--out. Run: python examples/03_train_a_network.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from openmm_gnn import GAMDSpec, NeighborSpec, load_model
from openmm_gnn.data.labels.settings import LabelSettings
from openmm_gnn.data.labels.teacher import label
from openmm_gnn.learning.training.data_sets import ErrorsOfFrames, force_matching_sets, open_all, select_seeds
from openmm_gnn.learning.training.force_matching import TrainingSettings, train
from openmm_gnn.md.systems.argon import argon


def make_spec(elements: tuple[int, ...], force_scale: float) -> GAMDSpec:
    """A small network; what it is, is written here and nowhere else, and saved with its weights."""
    neighbors = NeighborSpec(cutoff=0.75)
    return GAMDSpec(neighbors, elements, width=32, num_layers=1, min_distance=0.25, force_scale=force_scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="few frames and steps")
    parser.add_argument("--out", type=Path, default=Path("example-03"), help="directory of data and weights")
    options = parser.parse_args()
    frames, equilibration_ps, num_steps = (20, 1.0, 100) if options.short else (100, 20.0, 2000)

    # Seeds 1 and 2 are for training, 3 chooses the best weights, 4 is seen by nobody until the end.
    label(
        argon(), options.out / "data", LabelSettings(seeds=(1, 2, 3, 4), frames=frames, equilibration=equilibration_ps)
    )
    paths = [options.out / "data"]
    sets = force_matching_sets(paths, [1, 2], [3], make_spec, validation_frames=20, seed=0)
    settings = TrainingSettings(num_steps=num_steps, validate_every=num_steps // 4, warmup_steps=num_steps // 10)
    bundle = train(sets.spec, sets.training, sets.validation, settings, options.out / "network")

    opened = open_all(paths)
    held_out = ErrorsOfFrames(load_model(bundle), select_seeds(opened, [4]))
    for index in range(len(held_out)):
        held_out.add(index)
    errors = held_out.errors()
    print(f"{errors.num_frames} held-out frames, MAE {errors.mae:.3f} meV/angstrom")
    print(f"relative error of the forces: {100 * errors.relative_error:.2f} % (100 % would be no better than zero)")


if __name__ == "__main__":
    main()
