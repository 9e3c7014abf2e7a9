"""Small molecules with learned CVs of untrained networks: any function of the shape serves to test a bias."""

from __future__ import annotations

import numpy as np
import openmm
import torch
from openmm import app
from rounding import rounding_of_sum

from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.learned_cv import LearnedCV, OutputRanges
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.tokens.cv_network import CVNetwork


def small_encoder(cutoff: float = 8.0) -> Encoder:
    torch.manual_seed(2)
    spec = EncoderSpec(Architecture.TORCHMD_ET, num_layers=1, cutoff=cutoff, width=16, num_radial=8, num_heads=2)
    return Encoder(spec).requires_grad_(False).eval()


def chain(length: int = 6) -> SimulationSystem:
    """Bonded carbons in vacuum, one residue for every two."""
    topology, system, bonds = app.Topology(), openmm.System(), openmm.HarmonicBondForce()
    molecule, last = topology.addChain(), None
    for index in range(length):
        if index % 2 == 0:
            residue = topology.addResidue("CHN", molecule)
        atom = topology.addAtom(f"C{index % 2}", app.element.carbon, residue)
        system.addParticle(12.0)
        if last is not None:
            topology.addBond(last, atom)
            bonds.addBond(index - 1, index, 0.15, 1e5)
        last = atom
    system.addForce(bonds)
    zigzag = 0.13 * np.arange(length)[:, None] * [1.0, 0.0, 0.0] + 0.04 * (np.arange(length) % 2)[:, None]
    positions = zigzag + 0.01 * np.random.default_rng(0).normal(size=(length, 3))
    return SimulationSystem("chain", system, topology, positions, temperature=300.0, thermostat=Thermostat.LANGEVIN)


def untrained_cv(
    system: SimulationSystem,
    num_outputs: int = 2,
    samples: np.ndarray | None = None,
    target: np.ndarray | None = None,
    context: str = "whole",
    window: int | None = None,
) -> LearnedCV:
    """A CV of random weights; its outputs have mean 0 and variance 1 over frames around the start, or the samples.

    With a target (frames,), the outputs are combined to the one that is nearest to it.
    """
    featurizer = Featurizer(small_encoder(), system.topology, context=context, window=window)
    if samples is None:
        noise = 0.02 * np.random.default_rng(1).normal(size=(200, *system.positions.shape))
        samples = system.positions + noise.cumsum(axis=1)
    tokens = torch.from_numpy(featurizer.features(samples))
    places = torch.from_numpy(featurizer.coordinates(samples))
    torch.manual_seed(1)
    spec = CVNetworkSpec(
        featurizer.num_tokens, 16, num_outputs=num_outputs, mixer="mlp", width=16, num_layers=1, dropout=0.0
    )
    network = CVNetwork(spec).requires_grad_(False).eval()
    network.set_input_statistics(
        tokens[:, :, 0].mean(0), tokens[:, :, 0].std(0), tokens[:, :, 1:].square().mean((0, 2)).sqrt()
    )
    raw = network(tokens, places)
    matrix = torch.diag(1 / raw.std(0))
    if target is not None:
        wanted = torch.from_numpy((target - target.mean()) / target.std()).double()[:, None]
        matrix = torch.linalg.lstsq((raw - raw.mean(0)).double(), wanted, driver="gelsd").solution.float()
    network.set_output_map(raw.mean(0), matrix)
    description = featurizer.describe()
    return LearnedCV(
        encoder=small_encoder(),
        network=network,
        topology_hash=description["topology_hash"],
        tokens=description["tokens"],
        ranges=OutputRanges.of_series([network(tokens, places).double().numpy()]),
        context=featurizer.context,
    )


def rounding_of_values(cv: LearnedCV) -> float:
    """Rounding of the outputs in float32.

    A scalar of a token is a float32 sum of `width` terms and about as large as its mean. The network sees it in units
    of its spread over the samples, as its outputs, of variance 1, are in units of theirs.
    """
    sizes = cv.network.scalar_mean / cv.network.scalar_scale
    return rounding_of_sum(cv.network.spec.width, float(sizes.square().mean().sqrt()))


def values_of(cv: LearnedCV, system: SimulationSystem, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """By the featurizer and the network: what every other way must agree with."""
    context, window = cv.context.context.value, cv.context.window
    featurizer = Featurizer(cv.encoder, system.topology, cv.selection, context=context, window=window)
    tokens = torch.from_numpy(featurizer.features(positions, box))
    places = torch.from_numpy(featurizer.coordinates(positions, box))
    with torch.no_grad():
        return cv.network(tokens[None], places[None])[0].numpy()
