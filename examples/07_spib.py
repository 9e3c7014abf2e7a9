"""SPIB finds the states of alanine dipeptide, and how many there are, from its streamed embeddings.

You learn: SPIB begins with ten clusters, learns to predict the cluster a lag later through a bottleneck of two
numbers, gives every frame the state that is predicted for it, drops the empty ones, and learns again; what is left are
the states that live longer than the lag: the extended and the helical basin of psi, and rarer ones if a run is long.

Takes 2 minutes on 2 CPU cores; with --short 20 seconds. Run: python examples/07_spib.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from peptide_stream import streamed_run

from openmm_gnn import CVNetworkSpec, Mixer, Pooling, SpibSettings, split_by_time, train_spib, trajectory_of_store

LAG_PS = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="0.6 ns in place of 6")
    frames = 1500 if parser.parse_args().short else 15_000

    with tempfile.TemporaryDirectory() as folder:
        store, extended = streamed_run(Path(folder), frames)
        trajectory = trajectory_of_store(store)
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
    settings = SpibSettings(
        num_states=10, batch_size=500, learning_rate=2e-3, round_steps=20, most_rounds=6, refinements=6
    )
    training, validation = split_by_time([trajectory], LAG_PS, validation_share=0.3, num_blocks=2)
    for seed in range(5):  # a training whose states still change is no result: about one in ten
        result = train_spib(
            spec,
            training,
            LAG_PS,
            settings,
            seed,
            validation=validation,
            progress=lambda row: print(f"step {row.step}: loss {row.loss:.3f}, {row.num_states} states"),
        )
        if result.refinements[-1].changed < settings.converged:
            break
    states = result.states_of(trajectory)
    for state in range(result.num_states):
        inside = states == state
        print(f"state {state}: {inside.mean():.2f} of the time, psi extended in {extended[inside].mean():.2f} of it")
    # A state lies on one side of psi: how many frames are on the side where most of their state are?
    counts = [np.bincount(extended[states == state], minlength=2) for state in range(result.num_states)]
    share = sum(int(count.max()) for count in counts) / frames
    print(f"frames on the side of psi where most of their state are: {share:.3f}; it should be above 0.9")


if __name__ == "__main__":
    main()
