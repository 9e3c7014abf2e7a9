"""Residue windows against the encoder applied by hand to the atoms that were cut out, and what ends a window."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import mdtraj
import numpy as np
import openmm.app
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch.utils._python_dispatch import TorchDispatchMode
from without_waiting import WithoutWaiting

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features import featurizer as featurizer_module
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.residue_windows import ResidueWindows, residue_segments
from openmm_gnn.networks.encoders.encoder import Encoder

BACKBONE = "N:N CA:C C:C"
NUCLEOTIDE = "P:P O5':O C4':C C3':C O3':O"
TRICLINIC = np.array([[5.2, 0, 0], [2.1, 4.9, 0], [-1.7, 2.0, 4.6]])


def encoder_of(architecture: Architecture, cutoff: float = 5.0) -> Encoder:
    torch.manual_seed(1)
    layers = 1 if architecture is Architecture.TENSORNET else 2
    spec = EncoderSpec(architecture, num_layers=layers, cutoff=cutoff, width=8, num_radial=8, num_heads=2)
    return Encoder(spec).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoder_of(Architecture.TORCHMD_ET)


@pytest.fixture(scope="module")
def protein(villin: openmm.app.PDBFile) -> mdtraj.Topology:
    """Villin alone, its 35 residues in one chain."""
    topology = mdtraj.Topology.from_openmm(villin.topology)
    return topology.subset(topology.select("protein"))


@pytest.fixture(scope="module")
def places(protein: mdtraj.Topology, villin_positions: np.ndarray) -> np.ndarray:
    return villin_positions[: protein.n_atoms]


def heavy_atoms(topology: mdtraj.Topology, residues: Any) -> list[int]:
    return [atom.index for one in residues for atom in topology.residue(one).atoms if atom.element.number > 1]


def by_hand(
    encoder: Encoder, topology: mdtraj.Topology, positions: np.ndarray, residue: int, inside: Any, box: Any = None
) -> np.ndarray:
    """(4, width) of a residue in the graph of the residues `inside`, float64."""
    atoms = heavy_atoms(topology, inside)
    numbers = torch.tensor([topology.atom(index).element.number for index in atoms])
    cell = None if box is None else torch.from_numpy(10.0 * box)
    scalars, vectors = encoder.double()(numbers, torch.from_numpy(10.0 * positions[atoms]), None, cell)
    encoder.float()
    own = torch.tensor([topology.atom(index).residue.index == residue for index in atoms])
    return torch.cat([scalars[own].sum(0)[None], vectors[own].sum(0)]).numpy()


@pytest.mark.parametrize("architecture", list(Architecture))
@pytest.mark.parametrize("window", [0, 2])
def test_a_token_is_that_of_the_encoder_on_the_atoms_cut_out(
    architecture: Architecture, window: int, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    encoder = encoder_of(architecture)
    found = Featurizer(encoder, protein, dtype="float64", context="window", window=window).features(places)
    for residue in (0, 1, 2, 17, 33, 34):
        inside = range(max(0, residue - window), min(35, residue + window + 1))
        np.testing.assert_allclose(
            found[residue], by_hand(encoder, protein, places, residue, inside), atol=1e-10, err_msg=f"{residue}"
        )


def test_a_token_knows_nothing_of_what_is_outside_its_window(
    encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    window, residue = 3, 12
    inside = [
        atom.index for one in range(residue - window, residue + window + 1) for atom in protein.residue(one).atoms
    ]
    moved = places.copy()
    outside = np.setdiff1d(np.arange(protein.n_atoms), inside)
    moved[outside] += np.random.default_rng(0).normal(size=(len(outside), 3))
    cut = protein.subset(inside)
    for context, unchanged in (("window", True), ("whole", False)):
        options = {"context": context, "window": window if unchanged else None}
        featurizer = Featurizer(encoder, protein, **options)
        before, after = featurizer.features(places)[residue], featurizer.features(moved)[residue]
        alone = Featurizer(encoder, cut, **options).features(places[inside])[window]
        assert np.allclose(after, before, rtol=0, atol=1e-6 * np.abs(before).max()) is unchanged
        assert np.allclose(alone, before, rtol=0, atol=1e-6 * np.abs(before).max()) is unchanged


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("periodic", [False, True])
def test_a_window_of_the_whole_chain_is_the_whole_graph(
    dtype: str, tolerance: float, periodic: bool, encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    box = np.diag([2.4, 2.3, 2.5]) if periodic else None  # so small that the protein touches its images
    whole = Featurizer(encoder, protein, dtype=dtype).features(places, box)
    window = Featurizer(encoder, protein, dtype=dtype, context="window", window=34).features(places, box)
    np.testing.assert_allclose(window, whole, rtol=0, atol=tolerance * np.abs(whole).max())
    if periodic:
        assert np.abs(whole - Featurizer(encoder, protein, dtype=dtype).features(places)).max() > 1e-3


def test_scalars_stay_and_vectors_turn_with_the_molecule(
    encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    featurizer = Featurizer(encoder, protein, dtype="float64", context="window")
    turn = Rotation.random(random_state=4).as_matrix()
    before, after = featurizer.features(places), featurizer.features(places @ turn.T + [50.0, -20.0, 7.0])
    np.testing.assert_allclose(after[:, 0], before[:, 0], atol=1e-9)
    np.testing.assert_allclose(after[:, 1:], np.einsum("xy,tyc->txc", turn, before[:, 1:]), atol=1e-9)


@pytest.mark.parametrize("box", [np.diag([3.0, 3.1, 2.9]), TRICLINIC], ids=["orthogonal", "triclinic"])
def test_a_window_in_a_box_does_not_depend_on_images(
    box: np.ndarray, encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    featurizer = Featurizer(encoder, protein, dtype="float64", context="window", window=1)
    images = np.random.default_rng(2).integers(-2, 3, size=(3, protein.n_atoms, 3)) @ box
    found = featurizer.features(places + images, box)
    for frame in found:
        np.testing.assert_allclose(frame, featurizer.features(places), atol=1e-9)  # no window reaches across this box


def test_a_window_sees_its_own_images_where_the_box_is_small(
    encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    box = np.diag([0.95, 1.1, 1.2])
    found = Featurizer(encoder, protein, dtype="float64", context="window", window=1).features(places, box)
    expected = by_hand(encoder, protein, places, 20, (19, 20, 21), box)
    np.testing.assert_allclose(found[20], expected, atol=1e-9)
    assert np.abs(expected - by_hand(encoder, protein, places, 20, (19, 20, 21))).max() > 1e-3


def molecule(topology: mdtraj.Topology, chain: Any, name: str, atoms: str, number: int) -> Any:
    """Add a residue with the atoms "N:N CA:C ..." (name:element), bonded one to the next."""
    residue = topology.add_residue(name, chain, resSeq=number)
    made = [
        topology.add_atom(label, mdtraj.element.get_by_symbol(symbol), residue)
        for label, symbol in (entry.split(":") for entry in atoms.split())
    ]
    for first, second in itertools.pairwise(made):
        topology.add_bond(first, second)
    return residue


def _atom(residue: Any, name: str) -> Any:
    return next(residue.atoms_by_name(name))


def chains() -> mdtraj.Topology:
    """A capped peptide with two cysteines side by side, a ring of four, a strand with a gap, a ligand and an ion."""
    topology = mdtraj.Topology()

    def polymer(residues: str, atoms: str, ends: tuple[str, str], gap: int | None = None) -> list[Any]:
        chain, made = topology.add_chain(), []
        for number, name in enumerate(residues.split()):
            made.append(molecule(topology, chain, name, atoms, number=number + 1))
            if number and number != gap:
                topology.add_bond(_atom(made[-2], ends[0]), _atom(made[-1], ends[1]))
        return made

    polymer("ACE ALA CYS CYS ALA NME", BACKBONE + " SG:S", ("C", "N"), gap=3)
    peptide = list(topology.residues)
    topology.add_bond(_atom(peptide[2], "SG"), _atom(peptide[3], "SG"))  # across the gap, and no backbone
    ring = polymer("GLY GLY GLY GLY", BACKBONE, ("C", "N"))
    topology.add_bond(_atom(ring[-1], "C"), _atom(ring[0], "N"))
    polymer("DA DT DG DC", NUCLEOTIDE, ("O3'", "P"), gap=2)
    rest = topology.add_chain()
    molecule(topology, rest, "LIG", "C1:C C2:C", number=1)
    molecule(topology, rest, "ZN", "ZN:Zn", number=2)
    return topology


def test_a_window_ends_with_its_chain_and_at_gaps_and_no_bridge_joins() -> None:
    topology = chains()
    assert np.bincount(residue_segments(topology)).tolist() == [3, 3, 4, 2, 2, 1, 1]
    selected = np.arange(topology.n_atoms)
    windows = ResidueWindows.of(topology, selected, 1)
    assert windows.context.segments == (3, 3, 4, 2, 2, 1, 1)
    inside = [sorted({topology.atom(int(atom)).residue.index for atom in rows}) for rows in windows.rows]
    assert inside[:6] == [[0, 1], [0, 1, 2], [1, 2], [3, 4], [3, 4, 5], [4, 5]]
    assert inside[6:10] == [[6, 7], [6, 7, 8], [7, 8, 9], [8, 9]]
    assert inside[10:14] == [[10, 11], [10, 11], [12, 13], [12, 13]]
    assert inside[14:] == [[14], [15]]
    for residue, (rows, own) in enumerate(zip(windows.rows, windows.own, strict=True)):
        assert {topology.atom(int(atom)).residue.index for atom in rows[own]} == {residue}


def test_a_gap_is_seen_by_its_missing_bond_however_it_is_numbered(
    encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    kept = [atom.index for atom in protein.atoms if atom.residue.index not in (10, 11, 12)]
    cut = protein.subset(kept)
    for number, residue in enumerate(cut.residues):
        residue.resSeq = number  # as if nothing were missing
    featurizer = Featurizer(encoder, cut, dtype="float64", context="window", window=2)
    assert featurizer.context.segments == (10, 22)
    found = featurizer.features(places[kept])
    np.testing.assert_allclose(found[9], by_hand(encoder, protein, places, 9, (7, 8, 9)), atol=1e-10)
    np.testing.assert_allclose(found[10], by_hand(encoder, protein, places, 13, (13, 14, 15)), atol=1e-10)


def test_residues_that_are_not_selected_count_but_are_not_seen(
    encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    featurizer = Featurizer(
        encoder, protein, "not element H and not resid 12", dtype="float64", context="window", window=2
    )
    assert featurizer.context.segments == (35,)
    found = featurizer.features(places)[12]  # of residue 13: the twelfth is left out
    np.testing.assert_allclose(found, by_hand(encoder, protein, places, 13, (11, 13, 14, 15)), atol=1e-10)


def test_atoms_and_groups_are_described_in_the_windows_of_their_residues(
    encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    options: dict[str, Any] = {"dtype": "float64", "context": "window", "window": 1}
    residues = Featurizer(encoder, protein, **options)
    atoms = Featurizer(encoder, protein, tokens="atom", **options).features(places)
    members = residues.tokens.atoms
    found, start = residues.features(places), 0
    for token, size in enumerate(map(len, members)):
        np.testing.assert_allclose(atoms[start : start + size].sum(0), found[token], atol=1e-12)
        start += size
    pair = Featurizer(encoder, protein, tokens=[members[3] + members[20], members[5]], **options).features(places)
    np.testing.assert_allclose(pair, [found[3] + found[20], found[5]], atol=1e-12)
    mean = Featurizer(encoder, protein, reduction="mean", **options).features(places)
    np.testing.assert_allclose(mean * np.array([len(one) for one in members])[:, None, None], found, atol=1e-12)


@pytest.mark.parametrize("most", [1, 300, 100_000])
def test_tokens_do_not_depend_on_how_windows_and_frames_are_batched(
    most: int, encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = places + 0.02 * np.random.default_rng(3).normal(size=(5, *places.shape))
    options: dict[str, Any] = {"dtype": "float64", "context": "window"}
    boxes = np.stack([np.diag([2.0 + 0.1 * frame] * 3) for frame in range(5)])
    expected = [
        Featurizer(encoder, protein, **options).features(one, box) for one, box in zip(frames, boxes, strict=True)
    ]
    monkeypatch.setitem(featurizer_module.BATCH_ATOMS, "cpu", most)
    found = Featurizer(encoder, protein, **options).features(frames, boxes)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.parametrize("broken", [False, True])
def test_two_threads_make_the_features_that_one_makes(
    broken: bool, encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray
) -> None:
    before = torch.get_num_threads()
    featurizer = Featurizer(encoder, protein, context="window")
    frames = places + 0.02 * np.random.default_rng(3).normal(size=(3, *places.shape))
    numbers: list[int] = []
    try:
        torch.set_num_threads(1)
        expected = featurizer.features(frames)
        torch.set_num_threads(2)
        if broken:
            featurizer._numbers[-1] = 101
            with pytest.raises(ValueError, match="an atomic number is 101"):
                featurizer.features(frames)
        else:
            np.testing.assert_array_equal(featurizer.features(frames), expected)
        for ask in (lambda: numbers.append(torch.get_num_threads()),) * 2:
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
        assert [torch.get_num_threads(), *numbers] == [2, 2, 2]
    finally:
        torch.set_num_threads(before)


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


def test_work_grows_with_the_residues_however_dense_they_are(
    encoder: Encoder, protein: mdtraj.Topology, places: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = protein.copy()
    for _ in range(3):
        many = many.join(protein)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # the counter sees this thread alone
    crowd = np.concatenate([places + 0.05 * copy for copy in range(4)])
    work: dict[str, list[int]] = {}
    for context in ("window", "whole"):
        for topology, positions in ((protein, places), (many, crowd)):
            featurizer = Featurizer(encoder, topology, context=context)
            with CountedWork() as counted:
                featurizer.features(positions)
            work.setdefault(context, []).append(counted.numbers)
    assert work["window"][1] / work["window"][0] == pytest.approx(4, rel=0.02)
    assert work["whole"][1] / work["whole"][0] > 5


def test_windows_are_centred_about_their_own_atoms_without_waiting_for_a_device(
    protein: mdtraj.Topology, places: np.ndarray
) -> None:
    selected = np.array(heavy_atoms(protein, range(protein.n_residues)))
    frames = torch.from_numpy(np.stack([places, 1.1 * places])[:, selected].astype(np.float64))
    windows = ResidueWindows.of(protein, selected, 1)
    start = 0
    for block in windows.blocks(300):
        with WithoutWaiting():
            centred, graphs = block.centred(frames), block.graphs_of(2)
        assert graphs.tolist() == [*block.graph.tolist(), *(block.graph + block.num_graphs).tolist()]
        rows = windows.rows[start : start + block.num_graphs]
        expected = torch.cat([frames[:, atoms] - frames[:, atoms].mean(1, keepdim=True) for atoms in rows], dim=1)
        torch.testing.assert_close(centred, expected, rtol=0, atol=1e-12)
        start += block.num_graphs
    assert start == len(windows.rows) == protein.n_residues


def test_what_means_nothing_is_refused_in_words(encoder: Encoder, protein: mdtraj.Topology) -> None:
    for options, words in (
        ({"context": "windows"}, r"context is 'windows': give one of \['whole', 'window'\]"),
        ({"window": 2}, "window is 2, but context is 'whole'"),
        ({"context": "window", "window": -1}, "window is -1: give a whole number"),
        ({"context": "window", "window": 1.5}, r"window is 1\.5"),
    ):
        with pytest.raises(SpecError, match=words):
            Featurizer(encoder, protein, **options)
    bare = protein.copy()
    bare._bonds = []
    with pytest.raises(TopologyError, match="no bonds, which say what residues are neighbours"):
        Featurizer(encoder, bare, context="window")
    assert Featurizer(encoder, bare, context="window", window=0).context.segments == (1,) * 35


def test_what_is_said_of_the_features_names_the_context(encoder: Encoder, protein: mdtraj.Topology) -> None:
    whole = Featurizer(encoder, protein).describe()
    assert (whole["context"], whole["window"], whole["segments"]) == ("whole", None, None)
    windows = Featurizer(encoder, protein, context="window").describe()
    assert (windows["context"], windows["window"], windows["segments"]) == ("window", 2, [35])
