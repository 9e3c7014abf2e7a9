"""A protein-nucleic complex of thousands of residues: merged tokens let a VAMPnet train on it on one core.

You learn: tokens of proteins and nucleic acids come from one featurizer; windows of eight tokens of a chain are merged
into one, never across chains, so that attention has 300 of them in place of 2112; and the network finds the slow motion
of the complex, here all RNA bases turning by 50 degrees and back, among a little noise, without being told of it.

The shipped encoder was trained on peptides: it knows C, N, O and S, not phosphorus. The selection leaves P out, so a
phosphate is seen as its oxygens; for work on nucleic acids train an encoder that has seen them (openmm-gnn pretrain).

Takes 1 minute on 2 CPU cores, of which features of 64 frames are most; with --short (88 residues) 15 seconds.
Run: python examples/09_large_protein.py
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from large_complex import build_complex

from openmm_gnn import CVNetwork, CVNetworkSpec, Featurizer, lagged_covariances, vamp_score

STATES = np.array([0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1] * 4)
"""The hidden slow motion, frame by frame; the second half is kept for the test."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="2 helices and 1 strand in place of 48 and 8")
    # The smaller complex is learned by heart sooner: in 15 steps the hidden motion is found from each of 12 seeds.
    helices, strands, steps = (2, 1, 15) if parser.parse_args().short else (48, 8, 30)

    topology, *conformations = build_complex(helices, strands, 40 if strands > 1 else 32, 24)
    generator = np.random.default_rng(2)
    frames = np.stack([conformations[state] for state in STATES])
    # nm. Little: a network of this size learns the noise of a few dozen frames by heart, where it is as large as the
    # motion; of thermal motion it takes thousands of frames.
    frames += 0.001 * generator.standard_normal(frames.shape)
    featurizer = Featurizer("peptide-et", topology, selection="not element P")
    print(f"{topology.getNumResidues()} residues, {featurizer.num_atoms} atoms seen, {topology.getNumChains()} chains")
    start = time.perf_counter()
    tokens, places = (torch.from_numpy(call(frames)) for call in (featurizer.features, featurizer.coordinates))
    print(f"features of {len(frames)} frames: {time.perf_counter() - start:.0f} s")

    chains = tuple(residue.chain.index for residue in topology.residues())
    spec = CVNetworkSpec(
        *(featurizer.num_tokens, featurizer.width),
        num_outputs=1,
        mixer="equivariant-attention",
        width=32,
        num_layers=1,
        num_heads=4,
        dropout=0.0,
        merging="equivariant",
        window=8,
        chains=chains,
    )
    torch.manual_seed(0)
    network, half = CVNetwork(spec), len(STATES) // 2
    # One scale per feature, not per residue: of few frames that would raise the noise of residues that never move.
    scalars, vectors = tokens[:half, :, 0], tokens[:half, :, 1:]
    scales = scalars.std(dim=(0, 1)), vectors.square().mean(dim=(0, 1, 2)).sqrt()
    network.set_input_statistics(scalars.mean(dim=0), *scales)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    start = time.perf_counter()
    for _ in range(steps):
        outputs = network(tokens[:half], places[:half])
        score = vamp_score(lagged_covariances(outputs[:-1], outputs[1:]))
        optimizer.zero_grad()
        (-score).backward()
        optimizer.step()
    print(f"{len(spec.merged_tokens)} merged tokens, {steps} training steps: {time.perf_counter() - start:.0f} s")
    hidden = torch.from_numpy(STATES[:half, None]).double()
    most = float(vamp_score(lagged_covariances(hidden[:-1], hidden[1:])))
    print(f"VAMP-2 of the training frames: {float(score.detach()):.2f}; of the hidden motion itself: {most:.2f}")

    with torch.no_grad():
        slow = network(tokens[half:], places[half:])[:, 0].numpy()
    agreement = abs(np.corrcoef(slow, STATES[half:])[0, 1])
    print(
        f"correlation of the slow variable with the hidden motion, other frames: {agreement:.3f} (should be above 0.9)"
    )


if __name__ == "__main__":
    main()
