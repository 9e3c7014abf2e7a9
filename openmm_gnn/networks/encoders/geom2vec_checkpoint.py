"""Checkpoints of geom2vec, read safely and completely: hyper-parameters from the tensors, every weight to its place.

Source of the networks' hyper-parameters that no tensor shows (8 heads, noise of 0.2 angstrom) and of the training set:
Pengmei et al., J. Chem. Phys. 162 (2025), arXiv 2409.19838; Christensen et al., "OrbNet Denali", J. Chem. Phys. 155,
204103 (2021), arXiv 2107.00299.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.networks.encoders.geom2vec_weights import BODY, GEOM2VEC_LICENSE, HEADS, Weights, translate

NUM_HEADS = 8
DENALI_ELEMENTS = (1, 3, 5, 6, 7, 8, 9, 11, 12, 14, 15, 16, 17, 19, 20, 35, 53)
"""Elements of the set that the public checkpoints were trained on."""
DENALI_MARKS = {3, 11, 12, 14, 19, 20}
"""Those of them whose embeddings moved far from the rest in every public checkpoint."""


def read_geom2vec(path: Path) -> tuple[str, Weights]:
    """The spec, as JSON, and the weights of a geom2vec checkpoint (.pth), float32 and under the names of our modules.

    Raises:
        DataError: naming the file, if it cannot be read without running code, is no checkpoint of these networks, or
            lacks a tensor or has one too many.
    """
    weights = read_tensors(path)
    spec = spec_of(weights, path)
    return spec_to_json(spec), translate(weights, spec, str(path))


def read_tensors(path: Path) -> Weights:
    """The tensors of a file that torch.save wrote; nothing in it is run.

    Raises:
        DataError: if the file is damaged, holds code, or something else than named tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path} holds more than tensors, or is no checkpoint at all ({reason}): reading it could run its code; "
            "save the state_dict alone where you trust it, torch.save(model.state_dict(), path)"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as a checkpoint ({error}): it may be cut short; copy it again"
        ) from error
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise DataError(
            f"{path} holds {type(content).__name__} and not named tensors: give a geom2vec checkpoint, the state_dict "
            "of a torchmd-et, visnet or tensornet model"
        )
    return {str(name): tensor for name, tensor in content.items()}


def architecture_of(weights: Weights, path: Path) -> Architecture:
    """Which network the tensors belong to."""
    for mark, architecture in (
        ("attention_layers.0.", Architecture.TORCHMD_ET),
        ("vis_mp_layers.0.", Architecture.VISNET),
        ("tensor_embedding.", Architecture.TENSORNET),
    ):
        if any(name.startswith(BODY + mark) for name in weights):
            return architecture
    some = ", ".join(sorted(weights)[:3])
    raise DataError(f"{path} holds {some}, ...: none of torchmd-et, visnet and tensornet as geom2vec saves them")


def spec_of(weights: Weights, path: Path) -> EncoderSpec:
    """The hyper-parameters that the tensors' shapes and values show.

    Raises:
        DataError: if tensors that must be there are missing, or the radial basis is not the one it starts as, from
            which the cutoff is read.
    """
    architecture = architecture_of(weights, path)
    table = "tensor_embedding.emb.weight" if architecture is Architecture.TENSORNET else "embedding.weight"
    try:
        embedding = weights[BODY + table]
        centers, sharpness = (weights[f"{BODY}distance_expansion.{name}"].double() for name in ("means", "betas"))
    except KeyError as error:
        raise DataError(f"{path} has no tensor {error}: it is cut short, or not geom2vec's") from error
    layers = {int(found[1]) for name in weights if (found := re.match(re.escape(BODY) + r"\w*layers\.(\d+)\.", name))}
    cutoff = round(-math.log(float(centers[0])), 4) if float(centers[0]) > 0 else 0.0
    expected = (2.0 / len(centers) * (1.0 - math.exp(-cutoff))) ** -2
    if cutoff <= 0 or not torch.allclose(sharpness, torch.full_like(sharpness, expected), rtol=1e-5):
        raise DataError(
            f"the radial basis of {path} starts at {float(centers[0]):.3g} with sharpness {float(sharpness[0]):.6g}: "
            "it was trained or is of another kind, and hides the cutoff; give a checkpoint with a fixed expnorm basis"
        )
    if layers != set(range(len(layers))):
        raise DataError(f"{path} has layers {sorted(layers)}: some are missing; copy the file again")
    return EncoderSpec(
        architecture=architecture,
        num_layers=len(layers),
        cutoff=cutoff,
        width=embedding.shape[1],
        num_radial=len(centers),
        num_heads=NUM_HEADS,
        max_atomic_number=embedding.shape[0] - 1,
        elements=trained_elements(embedding),
        noise_scale=noise_scale(weights) if any(HEADS[architecture] in name for name in weights) else 0.0,
        metadata={"source": f"geom2vec checkpoint {path.name}", "license": GEOM2VEC_LICENSE},
    )


def trained_elements(embedding: Tensor) -> tuple[int, ...]:
    """Atomic numbers the training set held, if the (Z, H) embedding shows that it was OrbNet Denali; else none.

    Rows never trained have shrunk alike by weight decay, so that their norms differ by a tenth; some trained ones stand
    out. It cannot be seen of every row whether it was trained, but those that stand out show which set it was.
    """
    norms = embedding.double().norm(dim=1)
    far = {row for row, ratio in enumerate((norms / norms.median()).tolist()) if abs(ratio - 1) > 0.35}
    return DENALI_ELEMENTS if DENALI_MARKS <= far <= set(DENALI_ELEMENTS) else ()


def noise_scale(weights: Weights) -> float:
    """Standard deviation of the noise of the training, angstrom, from the running sums that the checkpoint kept."""
    sums = [weights.get(f"pos_normalizer.{name}") for name in ("acc_squared_sum", "acc_count")]
    if sums[0] is None or sums[1] is None or float(sums[1]) == 0:
        return 1.0
    return round(float((sums[0].double().mean() / sums[1].double()).sqrt()), 4)
