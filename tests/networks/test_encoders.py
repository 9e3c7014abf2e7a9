"""Encoders against what the published code makes of the same weights, and against their own symmetries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.learning.training.frames import random_rotation
from openmm_gnn.networks.encoders.encoder import Encoder, encoder_hash
from openmm_gnn.networks.weights import load_encoder

CHECKPOINTS = {
    "et": "et_l6_h64_rbf64_r75.pth",
    "visnet": "visnet_l6_h64_rbf64_r75.pth",
    "tensornet": "tensornet_l3_h64_rbf32_r5.pth",
}
STORED = [("ala2", "full"), ("villin1vii", "full"), ("villin1vii", "index")]
PER_ATOM = {torch.float64: 1e-9, torch.float32: 2e-5}
"""Largest deviation from the published code's arrays."""
SUMMED = {torch.float64: 1e-9, torch.float32: 1e-4}
SUFFIX = {torch.float64: "f64", torch.float32: "f32"}
Stored = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def stored(geom2vec_data: Path) -> Callable[[str, str, str], Stored]:
    """Arrays of a system, network and rule, read once."""
    read: dict[str, Stored] = {}

    def of(system: str, network: str, rule: str) -> Stored:
        name = f"{system}_{network}_{rule}"
        if name not in read:
            with np.load(geom2vec_data / f"{name}.npz") as arrays:
                read[name] = dict(arrays)
        return read[name]

    return of


def frames_of(arrays: Stored, count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Atomic numbers, positions and batch of the first frames."""
    numbers = torch.from_numpy(arrays["z"].astype(np.int64))
    positions = torch.from_numpy(arrays["positions"][:count]).reshape(-1, 3).to(dtype)
    return numbers.repeat(count), positions, torch.arange(count).repeat_interleave(len(numbers))


def largest_difference(found: Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy().reshape(expected.shape) - expected).max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("system", "rule"), STORED)
@pytest.mark.parametrize("network", CHECKPOINTS)
def test_features_and_noise_are_those_of_the_published_code(
    geom2vec_data: Path,
    stored: Callable[[str, str, str], Stored],
    network: str,
    system: str,
    rule: str,
    dtype: torch.dtype,
) -> None:
    arrays, suffix = stored(system, network, rule), SUFFIX[dtype]
    encoder = load_encoder(geom2vec_data / CHECKPOINTS[network], rule, smooth=False).to(dtype)
    count = len(arrays[f"scalar_{suffix}"])
    numbers, positions, batch = frames_of(arrays, count, dtype)
    scalars, vectors = encoder(numbers, positions, batch)
    assert scalars.dtype == dtype
    assert largest_difference(scalars, arrays[f"scalar_{suffix}"]) <= PER_ATOM[dtype]
    assert largest_difference(vectors, arrays[f"vector_{suffix}"]) <= PER_ATOM[dtype]
    if dtype == torch.float64 or system == "ala2":
        noise = encoder.predicted_noise(numbers, positions, batch) / encoder.spec.noise_scale
        assert largest_difference(noise, arrays[f"noise_{suffix}"]) <= PER_ATOM[dtype]

    both = torch.cat([scalars.unsqueeze(1), vectors], dim=1).view(count, -1, 4, encoder.spec.width)
    token = torch.from_numpy(arrays["residue_index"].astype(np.int64))
    tokens = torch.zeros(arrays[f"tokens_sum_{suffix}"].shape, dtype=dtype).index_add(1, token, both)
    assert largest_difference(tokens, arrays[f"tokens_sum_{suffix}"]) <= SUMMED[dtype]


@pytest.mark.parametrize("network", CHECKPOINTS)
def test_edges_by_index_are_those_of_a_gpu(
    geom2vec_data: Path, stored: Callable[[str, str, str], Stored], network: str
) -> None:
    arrays = stored("villin1vii", network, "index")
    _, positions, batch = frames_of(arrays, 2, torch.float32)
    index, _, _ = load_encoder(geom2vec_data / CHECKPOINTS[network], "index").edges(positions, batch)
    assert sorted(map(tuple, index.T.tolist())) == sorted(map(tuple, arrays["edge_index"].T.tolist()))


def changes_of(given: tuple[Tensor, ...], made: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of scalars and vectors, which a layer returns, and of the edges, which ViSNet's returns anew."""
    return made if len(made) == 2 else (made[0], made[1], made[2] - given[2])


@pytest.mark.parametrize("network", ["et", "visnet"])
def test_each_layer_changes_atoms_as_the_published_one_does(
    geom2vec_data: Path, stored: Callable[[str, str, str], Stored], network: str
) -> None:
    arrays = stored("ala2", network, "full")
    encoder = load_encoder(geom2vec_data / CHECKPOINTS[network], "full", smooth=False).double()
    index = torch.from_numpy(arrays["intermediate_edge_index_frame0"].astype(np.int64))
    numbers, positions, _ = frames_of(arrays, 1, torch.float64)
    edge_vectors = positions[index[0]] - positions[index[1]]
    changes: list[tuple[Tensor, ...]] = []
    for layer in encoder.network.layers:
        layer.register_forward_hook(lambda module, given, made: changes.append(changes_of(given, made)))
    rbf: list[Tensor] = []
    encoder.network.basis.register_forward_hook(lambda module, given, made: rbf.append(made))
    encoder.encode(numbers, index, edge_vectors, edge_vectors.norm(dim=1))
    assert largest_difference(rbf[0], arrays["frame0_rbf_f64"]) < 1e-12
    assert len(changes) == 6
    for k, change in enumerate(changes):
        for name, found in zip(("dx", "dvec", "dedge"), change, strict=False):
            if f"frame0_layer{k}_{name}_f64" in arrays:
                assert largest_difference(found, arrays[f"frame0_layer{k}_{name}_f64"]) <= 1e-9


def test_tensors_after_each_layer_are_the_published_ones(
    geom2vec_data: Path, stored: Callable[[str, str, str], Stored]
) -> None:
    from openmm_gnn.networks.encoders.tensornet import unpack

    arrays = stored("ala2", "tensornet", "full")
    encoder = load_encoder(geom2vec_data / CHECKPOINTS["tensornet"], "full", smooth=False).double()
    index = torch.from_numpy(arrays["intermediate_edge_index_frame0"].astype(np.int64))
    numbers, positions, _ = frames_of(arrays, 1, torch.float64)
    edge_vectors = positions[index[0]] - positions[index[1]]
    made: list[Tensor] = []
    for module in (encoder.network.embedding, *encoder.network.layers):
        module.register_forward_hook(lambda module, given, result: made.append(unpack(result).permute(0, 3, 1, 2)))
    encoder.encode(numbers, index, edge_vectors, edge_vectors.norm(dim=1))
    for found, name in zip(made, ("X0", "layer0_X", "layer1_X", "layer2_X"), strict=True):
        # The published arrays hold one more atom, without element, as padding.
        assert largest_difference(found, arrays[f"frame0_{name}_f64"][:10]) <= 1e-9


@pytest.mark.parametrize("network", CHECKPOINTS)
def test_by_fading_neighbours_an_encoder_sees_noise_as_well_as_by_its_nearest(
    geom2vec_data: Path, stored: Callable[[str, str, str], Stored], network: str
) -> None:
    """Which is why that rule is the default; benchmarks/neighbor_rules.py has the figures."""
    numbers, positions, _ = frames_of(stored("villin1vii", network, "full"), 1, torch.float32)
    noise = 0.2 * torch.randn(3, *positions.shape)
    error = {}
    for rule in ("fading", "nearest", "full", "index"):
        encoder = load_encoder(geom2vec_data / CHECKPOINTS[network], rule)
        left = torch.stack([encoder.predicted_noise(numbers, positions + added) - added for added in noise])
        error[rule] = float(left.square().mean() / noise.square().mean())
    assert load_encoder(geom2vec_data / CHECKPOINTS[network]).spec.neighbor_rule == "fading"
    assert error["fading"] <= error["nearest"] + 0.02  # 0.006 between frames of villin, either way, and the noise
    assert error["nearest"] <= min(error["full"], error["index"]) + 0.01
    assert error["nearest"] < (0.75 if network == "tensornet" else 0.45)


SMALL = {
    "torchmd-et": EncoderSpec("torchmd-et", 2, 4.0, width=16, num_radial=8, num_heads=4, noise_scale=0.2),
    "visnet": EncoderSpec("visnet", 2, 4.0, width=16, num_radial=8, num_heads=4, noise_scale=0.2),
    "tensornet": EncoderSpec("tensornet", 2, 4.0, width=16, num_radial=8, noise_scale=0.2),
}


def small(architecture: str, dtype: torch.dtype = torch.float64) -> Encoder:
    torch.manual_seed(3)
    return Encoder(SMALL[architecture]).eval().to(dtype)


def molecule(num_atoms: int = 24) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(5)
    positions = torch.from_numpy(generator.uniform(0, 6, (num_atoms, 3)))
    return torch.from_numpy(generator.choice([1, 6, 7, 8, 16], num_atoms)), positions


@pytest.mark.parametrize("architecture", SMALL)
def test_turned_atoms_give_turned_vectors_and_the_same_scalars(architecture: str) -> None:
    encoder, (numbers, positions) = small(architecture), molecule()
    turn = torch.from_numpy(random_rotation(np.random.default_rng(2)))
    with torch.no_grad():
        scalars, vectors = encoder(numbers, positions)
        turned_scalars, turned_vectors = encoder(numbers, positions @ turn.T + 4.0)
    assert float(vectors.abs().max()) > 1e-3
    torch.testing.assert_close(turned_scalars, scalars, rtol=0, atol=1e-10)
    torch.testing.assert_close(turned_vectors, torch.einsum("ab,nbh->nah", turn, vectors), rtol=0, atol=1e-10)


@pytest.mark.parametrize("network", CHECKPOINTS)
def test_features_of_a_turned_and_reordered_protein_agree_to_1e_5(
    geom2vec_data: Path, stored: Callable[[str, str, str], Stored], network: str
) -> None:
    """By the default rule; the published CPU rule changes tokens by a third here."""
    encoder = load_encoder(geom2vec_data / CHECKPOINTS[network])
    numbers, positions, _ = frames_of(stored("villin1vii", network, "full"), 1, torch.float64)
    turn = torch.from_numpy(random_rotation(np.random.default_rng(4)))
    order = torch.randperm(len(numbers))
    scalars, vectors = encoder(numbers, positions.float())
    moved_scalars, moved_vectors = encoder(numbers[order], (positions @ turn.T)[order].float())
    expected = torch.einsum("ab,nbh->nah", turn.float(), vectors[order])
    assert float((moved_scalars - scalars[order]).norm() / scalars.norm()) < 1e-5
    assert float((moved_vectors - expected).norm() / vectors.norm()) < 1e-5


@pytest.mark.parametrize("architecture", SMALL)
def test_a_molecule_across_a_face_of_the_box_has_the_features_of_the_whole_one(architecture: str) -> None:
    encoder, (numbers, positions) = small(architecture), molecule()
    box = torch.diag(torch.tensor([14.0, 15.0, 16.0], dtype=torch.float64))
    broken = torch.remainder(positions + 11.0, box.diagonal())
    with torch.no_grad():
        whole, across = encoder(numbers, positions), encoder(numbers, broken, None, box)
    for expected, found in zip(whole, across, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("architecture", SMALL)
def test_gradients_are_those_of_finite_differences(architecture: str) -> None:
    encoder, (numbers, positions) = small(architecture), molecule(12)
    weights = torch.randn(12, 4, 16, dtype=torch.float64)

    def value(positions: Tensor) -> Tensor:
        scalars, vectors = encoder(numbers, positions)
        return (torch.cat([scalars.unsqueeze(1), vectors], dim=1) * weights).sum()

    positions.requires_grad_()
    (gradient,) = torch.autograd.grad(value(positions), positions)
    step = 1e-5
    for atom, axis in ((0, 0), (5, 1), (11, 2)):
        change = torch.zeros_like(positions)
        change[atom, axis] = step
        slope = float((value(positions + change) - value(positions - change)).detach()) / (2 * step)
        assert float(gradient[atom, axis]) == pytest.approx(slope, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("architecture", SMALL)
def test_gradients_stay_finite_where_atoms_are_alone_or_coincide(architecture: str) -> None:
    encoder = small(architecture)
    numbers = torch.tensor([6, 7, 8, 1])
    positions = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1.0, 0.5, 0], [90.0, 0, 0]], dtype=torch.float64)
    positions.requires_grad_()
    noise = encoder.predicted_noise(numbers, positions)
    assert bool(torch.isfinite(noise).all())
    noise.square().sum().backward()
    assert positions.grad is not None and bool(torch.isfinite(positions.grad).all())
    assert all(bool(torch.isfinite(weight.grad).all()) for weight in encoder.parameters() if weight.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("architecture", SMALL)
def test_compiled_to_torchscript_it_gives_the_same(architecture: str, dtype: torch.dtype) -> None:
    encoder, (numbers, positions) = small(architecture, dtype), molecule()
    scripted = torch.jit.script(encoder)
    numbers, positions = numbers.repeat(2), torch.cat([positions, positions + 0.1 * torch.randn(24, 3)]).to(dtype)
    batch = torch.arange(2).repeat_interleave(24)
    box = torch.eye(3, dtype=dtype) * 20
    with torch.no_grad():
        for given in ((numbers, positions), (numbers, positions, batch), (numbers, positions, batch, box)):
            for mine, other in zip(encoder(*given), scripted(*given), strict=True):
                torch.testing.assert_close(mine, other, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)
        torch.testing.assert_close(
            encoder.predicted_noise(numbers, positions, batch), scripted.predicted_noise(numbers, positions, batch)
        )


@pytest.mark.parametrize("architecture", SMALL)
def test_no_atoms_give_no_features(architecture: str) -> None:
    scalars, vectors = small(architecture)(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.float64))
    assert scalars.shape == (0, 16) and vectors.shape == (0, 3, 16)


def test_an_unknown_atomic_number_is_refused() -> None:
    encoder, (_, positions) = small("torchmd-et"), molecule(2)
    for number in (0, 100):
        with pytest.raises(ValueError, match=f"an atomic number is {number}: the encoder knows 1 to 99"):
            encoder(torch.tensor([6, number]), positions)


def test_noise_without_a_head_is_refused() -> None:
    encoder = Encoder(EncoderSpec("tensornet", 1, 4.0, width=16, num_radial=8))
    with pytest.raises(RuntimeError, match="no denoising head"):
        encoder.predicted_noise(torch.tensor([6]), torch.zeros(1, 3))


def test_the_hash_tells_weights_and_rules_apart_and_forgets_dtype_and_origin() -> None:
    first = encoder_hash(small("visnet"))
    assert first == encoder_hash(small("visnet", torch.float32)) and len(first) == 64
    changed = small("visnet")
    with torch.no_grad():
        changed.network.norm.bias[3] += 1e-3
    assert encoder_hash(changed) != first
    import dataclasses

    for change, same in (({"neighbor_rule": "full"}, False), ({"metadata": {"a": 1}}, True)):
        torch.manual_seed(3)
        other = Encoder(dataclasses.replace(SMALL["visnet"], **change)).double()
        assert (encoder_hash(other) == first) is same
