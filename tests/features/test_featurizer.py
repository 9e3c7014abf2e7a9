"""Features against the encoder applied by hand, rotations, translations and other images of the same conformation."""

from __future__ import annotations

import itertools
import json
import pickle
import threading
from typing import Any

import mdtraj
import numpy as np
import openmm
import openmm.app
import pytest
import torch
from openmm import unit
from torch.utils._python_dispatch import TorchDispatchMode

from openmm_gnn.base.errors import NonFiniteError, SpecError, TopologyError
from openmm_gnn.features import featurizer as featurizer_module
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.token_table import TokenTable
from openmm_gnn.networks.encoders.encoder import Encoder

TRICLINIC = np.array([[5.2, 0, 0], [2.1, 4.9, 0], [-1.7, 2.0, 4.6]])


def applied_by_hand(encoder: Encoder, topology: mdtraj.Topology, positions: np.ndarray, atoms: Any) -> dict[int, Any]:
    """(4, width) for each residue index: a sum over atoms, written as a loop."""
    numbers = torch.tensor([topology.atom(int(k)).element.number for k in atoms])
    scalars, vectors = encoder.double()(numbers, torch.from_numpy(10.0 * positions[atoms]))
    encoder.float()
    sums: dict[int, Any] = {}
    for row, index in enumerate(atoms):
        own = np.concatenate([scalars[row].numpy()[None], vectors[row].numpy()])
        residue = topology.atom(int(index)).residue.index
        sums[residue] = sums.get(residue, 0.0) + own
    return sums


def test_features_are_the_encoder_in_angstrom_summed_over_residues(
    encoder: Encoder, featurizer: Featurizer, villin: openmm.app.PDBFile, villin_positions: np.ndarray
) -> None:
    topology = mdtraj.Topology.from_openmm(villin.topology)
    expected = applied_by_hand(encoder, topology, villin_positions, topology.select("protein and not element H"))
    found = featurizer.features(villin_positions)
    assert found.shape == (featurizer.num_tokens, 4, featurizer.width) == (35, 4, 8)
    assert list(expected) == list(range(35))
    np.testing.assert_allclose(found, np.stack(list(expected.values())), atol=1e-11)
    assert featurizer.tokens.labels[0] == "0:LEU1"


def test_the_mean_is_the_sum_over_the_number_of_atoms(
    encoder: Encoder, featurizer: Featurizer, villin: openmm.app.PDBFile, villin_positions: np.ndarray
) -> None:
    mean = Featurizer(encoder, villin.topology, reduction="mean", dtype="float64").features(villin_positions)
    sizes = np.array([len(members) for members in featurizer.tokens.atoms])
    np.testing.assert_allclose(mean * sizes[:, None, None], featurizer.features(villin_positions), atol=1e-12)


def test_groups_sum_the_atom_tokens(encoder: Encoder, villin: openmm.app.PDBFile, villin_positions: np.ndarray) -> None:
    atoms = Featurizer(encoder, villin.topology, tokens="atom", dtype="float64")
    rows = {members[0]: row for row, members in enumerate(atoms.tokens.atoms)}
    groups = [list(rows)[3:20], list(rows)[10:30], [list(rows)[200]]]
    found = Featurizer(encoder, villin.topology, tokens=groups, dtype="float64").features(villin_positions)
    each = atoms.features(villin_positions)
    np.testing.assert_allclose(found, [each[[rows[k] for k in group]].sum(0) for group in groups], atol=1e-12)


@pytest.mark.parametrize(
    ("form", "tolerance"),
    [
        (lambda x: x.astype(np.float32), 1e-4),
        (lambda x: torch.from_numpy(x), 0.0),
        (lambda x: torch.from_numpy(x).requires_grad_(), 0.0),
        (lambda x: unit.Quantity(x, unit.nanometer), 0.0),
        (lambda x: unit.Quantity(10.0 * x, unit.angstrom), 1e-10),
        (lambda x: unit.Quantity([openmm.Vec3(*row) for row in x], unit.nanometer), 0.0),
        (lambda x: np.asfortranarray(x), 0.0),
    ],
)
def test_positions_come_in_any_form(
    featurizer: Featurizer, villin_positions: np.ndarray, villin_box: np.ndarray, form: Any, tolerance: float
) -> None:
    expected = featurizer.features(villin_positions, villin_box)
    found = featurizer.features(form(villin_positions), form(villin_box))
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


def test_a_box_may_be_what_a_system_returns(
    featurizer: Featurizer, villin_positions: np.ndarray, villin_box: np.ndarray
) -> None:
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*row) for row in villin_box])
    found = featurizer.features(villin_positions, system.getDefaultPeriodicBoxVectors())
    np.testing.assert_array_equal(found, featurizer.features(villin_positions, villin_box))


class CountedWork(TorchDispatchMode):
    """Adds up the numbers that all tensor operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            self.numbers += one.numel() if isinstance(one, torch.Tensor) else 0
        return result


class Watched(np.ndarray):
    """An array that notes how many numbers are taken out of it."""

    taken: list[int]

    def __getitem__(self, key: Any) -> Any:
        result = np.asarray(self)[key]
        self.taken.append(result.size)
        return result

    def __array_finalize__(self, source: Any) -> None:
        self.taken = []


def test_water_costs_nothing(
    encoder: Encoder, featurizer: Featurizer, villin: openmm.app.PDBFile, villin_positions: np.ndarray, villin_box: Any
) -> None:
    """The same number of operations on the same number of numbers with 8,275 atoms of water and without."""
    protein = featurizer.topology.select("protein")
    alone = Featurizer(encoder, featurizer.topology.subset(protein), dtype="float64")
    work = []
    for one, positions in ((featurizer, villin_positions), (alone, villin_positions[protein])):
        one.features(positions, villin_box)  # the first frame with a box is also looked at for molecules that fill it
        watched = positions.view(Watched)
        watched.taken = []
        with CountedWork() as counted:
            features = one.features(watched, villin_box)
        work.append((counted.numbers, watched.taken))
        np.testing.assert_allclose(features, featurizer.features(villin_positions, villin_box), atol=1e-12)
    assert work[0] == work[1]
    assert work[0][1] == [3 * 289]


def test_atoms_that_are_not_selected_may_hold_anything(
    featurizer: Featurizer, villin_positions: np.ndarray, villin_box: np.ndarray
) -> None:
    spoiled = np.full_like(villin_positions, np.nan)
    read = featurizer.topology.select("protein and not element H")
    spoiled[read] = villin_positions[read]
    expected = featurizer.features(villin_positions, villin_box)
    np.testing.assert_array_equal(featurizer.features(spoiled, villin_box), expected)


def test_positions_of_the_read_atoms_alone_will_do(
    encoder: Encoder, villin: openmm.app.PDBFile, villin_positions: np.ndarray, villin_box: np.ndarray
) -> None:
    backbone = Featurizer(encoder, villin.topology, "name N C or name CB", dtype="float64")
    assert len(backbone.read_atoms) > backbone.num_atoms  # the alpha carbons join them
    frames = np.stack([villin_positions, 1.01 * villin_positions])
    read = frames[:, backbone.read_atoms]
    for method in (backbone.features, backbone.coordinates):
        np.testing.assert_array_equal(method(read, villin_box, of_read_atoms=True), method(frames, villin_box))
    with pytest.raises(SpecError, match="8867 particles, of which .* are read: give"):
        backbone.features(frames, of_read_atoms=True)


def moved_images(positions: np.ndarray, topology: mdtraj.Topology, box: np.ndarray, seed: int) -> list[np.ndarray]:
    """The same conformation written in other images: by molecule, by atom, and in the primary cell."""
    rng = np.random.default_rng(seed)
    by_molecule = positions.copy()
    for members in topology.find_molecules():
        by_molecule[[atom.index for atom in members]] += rng.integers(-2, 3, 3) @ box
    by_atom = positions + rng.integers(-2, 3, positions.shape) @ box
    fractions = (positions + rng.normal(size=3)) @ np.linalg.inv(box)
    return [by_molecule, by_atom, (fractions - np.floor(fractions)) @ box]


@pytest.mark.parametrize("box", [np.diag([4.9, 4.6, 3.9]), TRICLINIC], ids=["bricks", "triclinic"])
def test_features_do_not_depend_on_the_image_of_any_molecule_or_atom(
    encoder: Encoder, villin: openmm.app.PDBFile, villin_positions: np.ndarray, box: np.ndarray
) -> None:
    # 35 residues and the 30 waters and 2 ions nearest to them: neighbours through the faces of the box among them.
    topology = mdtraj.Topology.from_openmm(villin.topology)
    inside = topology.select("protein or resSeq 100 to 300 and name O or resname Cl")
    featurizer = Featurizer(
        encoder, topology, f"(not element H) and index {' '.join(map(str, inside))}", dtype="float64"
    )
    assert featurizer.num_tokens > 100
    expected = featurizer.features(villin_positions, box)
    scale = np.abs(expected).max()
    for other in moved_images(villin_positions, topology, box, 2):
        np.testing.assert_allclose(featurizer.features(other, box), expected, atol=1e-10 * scale)
    # The box does matter here: by 1e-3, as what comes from just within the cutoff has faded; 1e6 times the rounding.
    assert np.abs(featurizer.features(villin_positions) - expected).max() > 1e-4 * scale


def two_molecules(first: np.ndarray, second: np.ndarray) -> tuple[mdtraj.Topology, np.ndarray]:
    topology = mdtraj.Topology()
    for number, positions in enumerate((first, second)):
        residue = topology.add_residue("LIG", topology.add_chain("AB"[number]))
        atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(len(positions))]
        for one, other in itertools.pairwise(atoms):
            topology.add_bond(one, other)
    return topology, np.concatenate([first, second])


def test_neighbours_through_a_face_are_seen_as_in_the_open(encoder: Encoder) -> None:
    """Two molecules in contact, cut apart by the face of the box."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 3)) * 0.15, rng.normal(size=(6, 3)) * 0.15 + np.array([0.4, 0, 0])
    topology, positions = two_molecules(first, second)
    featurizer = Featurizer(encoder, topology, dtype="float64")
    box = np.eye(3) * 4.0
    apart = positions.copy()
    apart[6:] += [4.0, -8.0, 4.0]
    together = featurizer.features(positions)
    np.testing.assert_allclose(featurizer.features(apart, box), together, atol=1e-11)
    assert np.abs(featurizer.features(apart) - together).max() > 0.01
    shift = featurizer.coordinates(apart, box) - featurizer.coordinates(positions)
    np.testing.assert_allclose(shift, 0.0, atol=1e-6)


def test_scalars_stay_and_vectors_turn_with_the_molecule(featurizer: Featurizer, villin_positions: np.ndarray) -> None:
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    before = featurizer.features(villin_positions)
    after = featurizer.features(villin_positions @ turn.T + [30.0, -4.0, 2.0])
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-10)
    np.testing.assert_allclose(after[:, 1:], np.einsum("ab,tbh->tah", turn, before[:, 1:]), atol=1e-10)


def test_frames_together_are_the_frames_one_by_one(
    encoder: Encoder, villin: openmm.app.PDBFile, villin_positions: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(7)
    frames = villin_positions + rng.normal(size=(3, 1, 3)) + 0.01 * rng.normal(size=(3, *villin_positions.shape))
    boxes = np.stack([np.diag([4.9, 4.6, 3.9]) * scale for scale in (1.0, 1.1, 1.2)])
    for atoms in (700, 10_000):  # two and all frames go through together
        monkeypatch.setattr(featurizer_module, "BATCH_ATOMS", {"cpu": atoms, "cuda": atoms})
        featurizer = Featurizer(encoder, villin.topology, dtype="float64")
        for box, boxes_of in ((None, [None] * 3), (boxes[0], [boxes[0]] * 3), (boxes, boxes)):
            together = featurizer.features(frames, box)
            singles = [featurizer.features(frame, one) for frame, one in zip(frames, boxes_of, strict=True)]
            np.testing.assert_allclose(together, np.stack(singles), atol=1e-11)
            places = [featurizer.coordinates(frame, one) for frame, one in zip(frames, boxes_of, strict=True)]
            np.testing.assert_array_equal(featurizer.coordinates(frames, box), np.stack(places))
    assert featurizer.features(frames[:1]).shape == (1, 35, 4, 8)
    assert featurizer.features(frames[:0]).shape == (0, 35, 4, 8)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("bfloat16", 0.02)])
def test_shorter_numbers_agree_also_far_from_the_origin(
    encoder: Encoder,
    featurizer: Featurizer,
    villin: openmm.app.PDBFile,
    villin_positions: np.ndarray,
    dtype: str,
    tolerance: float,
) -> None:
    expected = featurizer.features(villin_positions)
    found = Featurizer(encoder, villin.topology, dtype=dtype).features(villin_positions + 5000.0)
    assert found.dtype == np.float32
    assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)
    assert next(encoder.parameters()).dtype == torch.float32  # the caller's own is left alone


def test_coordinates_are_alpha_carbons_or_centroids_as_the_table_says(encoder: Encoder, zoo: mdtraj.Topology) -> None:
    positions = np.random.default_rng(0).normal(size=(zoo.n_atoms, 3))
    featurizer = Featurizer(encoder, zoo)
    found = featurizer.coordinates(positions)
    assert found.dtype == np.float32 and found.shape == (featurizer.num_tokens, 3)
    for row, (members, kind, index) in enumerate(
        zip(featurizer.tokens.atoms, featurizer.tokens.anchors, featurizer.tokens.anchor_atoms, strict=True)
    ):
        expected = positions[list(members)].mean(0) if kind.value == "centroid" else positions[index]
        np.testing.assert_allclose(found[row], expected, atol=1e-6)
    with pytest.raises(TopologyError, match="no alpha carbon .* A:ACE1"):
        Featurizer(encoder, zoo, coordinates="CA")
    alpha = Featurizer(encoder, zoo, "resname ALA and not element H", coordinates="CA")
    np.testing.assert_allclose(
        alpha.coordinates(positions), positions[zoo.select("resname ALA and name CA")], atol=1e-6
    )


def test_features_that_are_not_finite_name_the_token(encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    topology, positions = two_molecules(rng.normal(size=(4, 3)) * 0.1, rng.normal(size=(4, 3)) * 0.1 + 20.0)
    topology.atom(5).element = mdtraj.element.sulfur
    damaged = pickle.loads(pickle.dumps(encoder))
    damaged.network.embedding.weight.data[16] = np.nan
    with pytest.raises(NonFiniteError, match=r"token B:LIG1 \(1 tokens in all\)"):
        Featurizer(damaged, topology).features(positions)
    with pytest.raises(NonFiniteError, match="token B:LIG1 in frame 0"):
        Featurizer(damaged, topology).features(positions[None])


def test_another_neighbour_rule_is_taken(encoder: Encoder, villin: openmm.app.PDBFile) -> None:
    full = Featurizer(encoder, villin.topology, neighbor_rule="full")
    assert full.spec.neighbor_rule.value == "full" != encoder.spec.neighbor_rule.value
    assert full.encoder_hash != Featurizer(encoder, villin.topology).encoder_hash
    published = Featurizer(encoder, villin.topology, neighbor_rule="nearest").spec
    assert encoder.spec.smooth and full.spec.smooth and not published.smooth


def test_the_description_is_json_and_says_what_differs(
    encoder: Encoder, featurizer: Featurizer, villin: openmm.app.PDBFile
) -> None:
    document = featurizer.describe()
    assert json.loads(json.dumps(document)) == document
    assert TokenTable.from_json(document["tokens"]) == featurizer.tokens
    assert document == Featurizer(encoder, villin.topology, dtype="float64").describe()
    other = Featurizer(encoder, villin.topology, "protein and backbone", reduction="mean").describe()
    differing = [name for name in document if document[name] != other[name]]
    assert differing == ["topology_hash", "selection", "tokens", "reduction", "dtype"]  # the hash is of these atoms
    retrained = pickle.loads(pickle.dumps(encoder))
    retrained.network.norm.bias.data += 1e-3
    own, others = document["encoder"], Featurizer(retrained, villin.topology).describe()["encoder"]
    assert own["hash"] != others["hash"] and own["spec"] == others["spec"]


def test_threads_share_a_featurizer_and_nothing_global_changes(
    featurizer: Featurizer, villin_positions: np.ndarray
) -> None:
    state = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    )
    frames = [villin_positions + 0.01 * k * np.sin(villin_positions) for k in range(4)]
    expected = [featurizer.features(frame) for frame in frames]
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        found[number] = featurizer.features(frames[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_array_equal(found[number], expected[number])
    after = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    )
    assert after == state


def test_a_featurizer_can_be_sent_to_another_process(
    featurizer: Featurizer, villin_positions: np.ndarray, villin_box: np.ndarray
) -> None:
    sent = pickle.loads(pickle.dumps(featurizer))
    expected = featurizer.features(villin_positions, villin_box)
    np.testing.assert_array_equal(sent.features(villin_positions, villin_box), expected)
    assert sent.describe() == featurizer.describe()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_features(
    encoder: Encoder, featurizer: Featurizer, villin: openmm.app.PDBFile, villin_positions: np.ndarray, villin_box: Any
) -> None:
    on_gpu = Featurizer(encoder, villin.topology, dtype="float64", device="cuda")
    expected = featurizer.features(villin_positions, villin_box)
    for positions in (villin_positions, torch.from_numpy(villin_positions).cuda()):
        np.testing.assert_allclose(on_gpu.features(positions, villin_box), expected, atol=1e-10)
    np.testing.assert_allclose(
        on_gpu.coordinates(villin_positions, villin_box),
        featurizer.coordinates(villin_positions, villin_box),
        atol=1e-6,
    )
