"""Left and right helices of glycine: the same to networks of invariants, told apart by triple products of vectors."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from openmm import app

from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.networks.tokens.equivariant_layers import Chirality

RESIDUES, FRAMES = 8, 48
MIRROR = np.array([1.0, 1.0, -1.0])


def placed(a: np.ndarray, b: np.ndarray, c: np.ndarray, bond: float, angle: float, torsion: float) -> np.ndarray:
    """An atom by its bond to c, its angle with b and its torsion with a; degrees."""
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    bend, turn = np.radians(180 - angle), np.radians(torsion)
    side = np.cos(turn) * np.cross(normal, along) + np.sin(turn) * normal
    return np.asarray(c + bond * (np.cos(bend) * along + np.sin(bend) * side))


def right_helix() -> tuple[app.Topology, np.ndarray]:
    """N, CA, C and O of glycines with phi -57 and psi -47; nm."""
    topology, placed_atoms = app.Topology(), []
    chain = topology.addChain()
    n, ca = np.zeros(3), np.array([0.146, 0.0, 0.0])
    c, previous = placed(np.array([0.0, 0.1, 0.0]), n, ca, 0.152, 111, -60), None
    for _ in range(RESIDUES):
        residue = topology.addResidue("GLY", chain)
        atoms = {
            name: topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in ("N", "CA", "C", "O")
        }
        for first, second in (("N", "CA"), ("CA", "C"), ("C", "O")):
            topology.addBond(atoms[first], atoms[second])
        if previous is not None:
            topology.addBond(previous, atoms["N"])
        previous = atoms["C"]
        placed_atoms += [n, ca, c, placed(n, ca, c, 0.123, 120, -47 + 180)]
        after = placed(n, ca, c, 0.133, 116, -47)
        after_ca = placed(ca, c, after, 0.146, 122, 180)
        n, ca, c = after, after_ca, placed(c, after, after_ca, 0.152, 111, -57)
    return topology, np.array(placed_atoms)


@functools.cache
def helices() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens and coordinates of right helices with some noise, then of their mirror images; 1 and -1."""
    topology, right = right_helix()
    featurizer = Featurizer("peptide-et", topology)
    noisy = right + 0.005 * np.random.default_rng(0).normal(size=(FRAMES, *right.shape))
    frames = np.concatenate([noisy, noisy * MIRROR])
    labels = torch.cat([torch.ones(FRAMES), -torch.ones(FRAMES)])
    return torch.from_numpy(featurizer.features(frames)), torch.from_numpy(featurizer.coordinates(frames)), labels


def network(chiral: bool, seed: int = 0) -> CVNetwork:
    tokens = helices()[0]
    torch.manual_seed(seed)
    made = CVNetwork(
        CVNetworkSpec(
            RESIDUES, tokens.shape[3], 1, width=16, num_layers=1, dropout=0.0, chiral=chiral,
        )
    )  # fmt: skip
    scalars, vectors = tokens[:, :, 0], tokens[:, :, 1:]
    made.set_input_statistics(scalars.mean(0), scalars.std(0), vectors.square().mean(dim=(0, 2)).sqrt())
    return made


def test_scalars_and_networks_of_invariants_are_blind_to_a_mirror() -> None:
    tokens, places, _ = helices()
    largest = tokens[:, :, 0].abs().max()
    assert (tokens[:FRAMES, :, 0] - tokens[FRAMES:, :, 0]).abs().max() < 1e-5 * largest  # float32 sums, other order
    with torch.no_grad():
        found = network(False).double()(tokens.double(), places.double())[:, 0]
    assert (found[:FRAMES] - found[FRAMES:]).abs().max() < 1e-5 * found.abs().max()


def test_a_chiral_network_learns_left_from_right() -> None:
    """Frames it has not seen, from three starts."""
    tokens, places, labels = helices()
    seen = torch.arange(2 * FRAMES) % FRAMES < FRAMES // 2
    for seed in range(3):
        made = network(True, seed).train()
        steps = torch.optim.Adam(made.parameters(), lr=5e-3)
        for _ in range(60):
            loss = (made(tokens[seen], places[seen])[:, 0] - labels[seen]).square().mean()
            steps.zero_grad()
            loss.backward()
            steps.step()
        with torch.no_grad():
            found = made.eval()(tokens[~seen], places[~seen])[:, 0]
        assert (found.sign() == labels[~seen]).float().mean() == 1.0, (seed, float(loss))


def test_the_option_of_an_analysis_is_that_of_its_network() -> None:
    assert AnalysisSettings(lag=1.0, chiral=True).to_json()["chiral"] is True


@pytest.mark.parametrize("scripted", [False, True])
def test_a_turn_changes_nothing_and_a_mirror_the_sign_of_what_is_added(scripted: bool) -> None:
    torch.manual_seed(1)
    layer = Chirality(6).double()
    called = torch.jit.script(layer) if scripted else layer
    scalars, vectors = torch.zeros(2, 3, 6, dtype=torch.float64), torch.randn(2, 3, 3, 6, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    turn = turn * torch.linalg.det(turn)
    plain, turned, mirrored = (
        called(scalars, torch.einsum("ij,btjc->btic", matrix, vectors))
        for matrix in (torch.eye(3).double(), turn, -turn)
    )
    assert (plain - turned).abs().max() < 1e-14 and (plain + mirrored).abs().max() < 1e-14
    assert plain.abs().max() > 0.01
