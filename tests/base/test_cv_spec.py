"""The specification of CV networks: what it refuses, its JSON form, and which tokens are merged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.base.specs.tokens import CVNetworkSpec, Mixer, windows_of

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_tokens": 0}, "num_tokens is 0: give at least 1"),
    ({"width": 7, "mixer": "mlp"}, "width is 7: give an even number"),
    ({"mixer": "conformer"}, "mixer is 'conformer': give one of"),
    ({"mixer": "subformer", "width": 12}, "give a multiple of num_heads"),
    ({"dropout": 1.0}, "dropout is 1.0: give 0 or more, below 1"),
    ({"graph_cutoff": float("nan")}, "graph_cutoff is nan: give a finite number above 0"),
    ({"chains": (0, 0)}, "names the chains of 2 tokens, there are 6"),
    ({"window": 2}, "merging is 'none'"),
    ({"merging": "scalar", "window": 2, "groups": ((0, 1, 2, 3, 4, 5),)}, "choose one way of merging"),
    ({"merging": "scalar", "groups": ((0, 1, 2, 3, 4, 6),)}, "group 0 has token 6: there are 6"),
    ({"merging": "scalar", "groups": ((0, 1, 2, 3, 4),)}, "token 5 is in 0 groups"),
    ({"merging": "scalar", "groups": ((0, 1, 2, 3, 4, 5), (5,))}, "token 5 is in 2 groups"),
    ({"merging": "scalar", "groups": ((0, 1, 2, 3, 4, 5), ())}, "group 1 is empty"),
    ({"merging": "scalar", "groups": ((0, 1, 2), (3, 4, 5)), "chains": (0, 0, 1, 1, 1, 1)}, "tokens of several chains"),
    ({"merging": "scalar", "window": 2, "mixer": "subgvp"}, "needs vectors, which scalar merging ends"),
    ({"local_attention": "geometric"}, "it belongs to the mixer 'equivariant-attention'"),
    ({"softmax": True, "num_outputs": 1}, "give at least 2 outputs"),
    ({"num_tokens": 1, "global_token": True}, "a global token of 1 tokens"),
    ({"num_tokens": 513, "global_token": True}, "merge more of them, or leave it away"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_contradicts_itself_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        CVNetworkSpec(**{"num_tokens": 6, "input_width": 16, **fields})


@pytest.mark.parametrize("mixer", Mixer)
def test_json_gives_the_same_spec_back(mixer: Mixer) -> None:
    spec = CVNetworkSpec(5, 16, 3, mixer, chains=(0, 0, 0, 1, 1), merging="equivariant", window=2, metadata={"lag": 3})
    again = spec_from_json(spec_to_json(spec), CVNetworkSpec)
    assert again == spec and again.metadata == {"lag": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "gamd"}, "expected the kind 'cv-network'"),
        ({"version": 99}, "version 99, this package reads 1"),
        ({"spec": {"num_tokens": 3}}, "unknown or missing fields"),
        ({"spec": {"num_tokens": 3, "input_width": 4, "colour": "red"}}, "unknown or missing fields"),
    ],
)
def test_a_document_of_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    document = json.loads(spec_to_json(CVNetworkSpec(3, 16)))
    with pytest.raises(SpecError, match=message):
        spec_from_json(json.dumps({**document, **change}), CVNetworkSpec)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(SpecError, match="is not JSON"):
        spec_from_json("{", CVNetworkSpec)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 5))
def test_windows_hold_each_token_once_and_end_with_their_chain(lengths: list[int], window: int) -> None:
    chains = [chain for chain, length in enumerate(lengths) for _ in range(length)]
    windows = windows_of(chains, window)
    assert [token for members in windows for token in members] == list(range(len(chains)))
    assert all(len({chains[token] for token in members}) == 1 for members in windows)
    if window == 0:
        assert len(windows) == len(lengths)
    else:
        assert len(windows) == sum(-(-length // window) for length in lengths)
        assert max(map(len, windows)) <= window


def test_chains_of_one_name_that_are_apart_are_not_merged() -> None:
    assert windows_of((0, 1, 0, 0), 0) == ((0,), (1,), (2, 3))


def test_each_kind_of_specification_says_what_reads_it() -> None:
    text = spec_to_json(CVNetworkSpec(3, 16))
    with pytest.raises(SpecError, match="a CV network's: load it with load_cv_network; expected the kind 'encoder'"):
        spec_from_json(text, EncoderSpec)
    with pytest.raises(SpecError, match="a learned CV's: load it with load_learned_cv; expected a kind among"):
        spec_from_json('{"kind": "learned-cv"}')
    with pytest.raises(SpecError, match="unknown or missing fields"):
        spec_from_json('{"kind": "encoder", "version": 1}')
    with pytest.raises(SpecError, match="unknown or missing fields"):
        spec_from_json('{"kind": "gamd", "version": 1, "spec": {"neighbors": 3, "elements": [18]}}')
