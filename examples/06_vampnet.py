"""A VAMPnet finds the slow motion of alanine dipeptide in its streamed embeddings, without knowing any dihedral.

You learn: a store becomes a trajectory of tokens; training and validation are parts of it with a gap of a lag between;
after training the outputs of the network are the slow variables themselves, with mean 0 and variance 1; and the first
one is the turn of psi between the extended and the helical basin. phi is slower still, but turns once in 10 ns.

Takes 4 minutes on 2 CPU cores; with --short 20 seconds. Run: python examples/06_vampnet.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from peptide_stream import streamed_run

from openmm_gnn import (
    CVNetworkSpec,
    Mixer,
    Pooling,
    VampnetSettings,
    slow_variables,
    split_by_time,
    train_vampnet,
    trajectory_of_store,
)

LAG_PS = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="0.5 ns in place of 6")
    frames, steps = (1200, 40) if parser.parse_args().short else (15_000, 200)

    with tempfile.TemporaryDirectory() as folder:
        store, extended = streamed_run(Path(folder), frames)
        trajectory = trajectory_of_store(store)
    # The last quarter is kept for the end.
    seen, unseen = trajectory.part(0, 3 * frames // 4), trajectory.part(3 * frames // 4, frames)
    training, validation = split_by_time([seen], LAG_PS, validation_share=0.3, num_blocks=2)
    spec = CVNetworkSpec(
        num_tokens=store.num_tokens,
        input_width=store.width,
        num_outputs=2,
        mixer=Mixer.MLP,
        width=32,
        num_layers=1,
        dropout=0.0,
        pooling=Pooling.FLATTEN,
    )
    settings = VampnetSettings(num_steps=steps, batch_size=1000, validate_every=20, patience=3)
    best = train_vampnet(spec, training, validation, LAG_PS, settings, progress=False).best
    print(f"VAMP-2 at {LAG_PS:g} ps: training {best.training_score:.2f}, validation {best.validation_score:.2f}")
    print(f"implied timescales: {', '.join(f'{time:.0f}' for time in best.timescales_ps)} ps")

    first = slow_variables(best.network, seen)[:, 0]
    state = extended[: len(seen)]
    means = first[state].mean(), first[~state].mean()
    predicted = (slow_variables(best.network, unseen)[:, 0] > np.mean(means)) == (means[0] > means[1])
    share = np.mean(predicted == extended[len(seen) :])
    print(f"frames whose side of psi the first slow variable tells, unseen: {share:.3f}; it should be above 0.9")


if __name__ == "__main__":
    main()
