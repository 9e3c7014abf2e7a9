"""Positions, boxes and arguments that a featurizer refuses, in words."""

from __future__ import annotations

import mdtraj
import numpy as np
import pytest

from openmm_gnn.base.errors import NonFiniteError, SpecError, TopologyError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.networks.encoders.encoder import Encoder


def test_a_position_that_is_not_finite_is_named(
    featurizer: Featurizer, villin_positions: np.ndarray, villin_box: np.ndarray
) -> None:
    broken = np.stack([villin_positions] * 3)
    atom = featurizer.topology.select("resname TRP and name CB")[0]
    broken[1, atom, 2] = np.nan
    broken[2, atom + 1] = np.inf
    with pytest.raises(NonFiniteError, match=rf"atom {atom} \(CB of TRP23\) in frame 1 is .*nan"):
        featurizer.features(broken, villin_box)
    with pytest.raises(NonFiniteError, match=rf"atom {atom} \(CB of TRP23\) is "):
        featurizer.coordinates(broken[1])


@pytest.mark.parametrize("shape", [(8866, 3), (289, 3), (8867, 4), (8867 * 3,), (1, 1, 8867, 3)])
def test_positions_of_another_system_are_refused(featurizer: Featurizer, shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="the topology has 8867 particles"):
        featurizer.features(np.zeros(shape))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (np.eye(3)[:2], r"shape \(2, 3\) came with 2 frames"),
        (np.stack([np.eye(3)] * 3), r"shape \(3, 3, 3\) came with 2 frames"),
        (np.zeros((3, 3)), "frame 0 .* cannot be a box of"),
    ],
)
def test_boxes_that_cannot_be_are_refused(
    featurizer: Featurizer, villin_positions: np.ndarray, box: np.ndarray, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        featurizer.features(np.stack([villin_positions] * 2), box)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tokens": "chain"}, r"tokens is 'chain': give one of \['residue', 'atom'\]"),
        ({"reduction": "max"}, r"reduction is 'max'"),
        ({"dtype": "float16"}, r"dtype is 'float16': give one of \['float32'"),
        ({"neighbor_rule": "farthest"}, r"neighbor_rule is 'farthest'"),
        ({"coordinates": "CB"}, r"coordinates is 'CB'"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    encoder: Encoder, zoo: mdtraj.Topology, wrong: dict[str, str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        Featurizer(encoder, zoo, **wrong)


def test_elements_beyond_the_encoders_are_refused(zoo: mdtraj.Topology) -> None:
    spec = EncoderSpec(Architecture.TORCHMD_ET, 1, 5.0, width=8, num_radial=4, elements=(6, 7, 8, 15))
    with pytest.raises(TopologyError, match=r"element Ar \(1 atoms, .*atomic numbers 6-8, 15"):
        Featurizer(Encoder(spec), zoo)
    Featurizer(Encoder(spec), zoo, "not element VS H Ca Cl Ar")
