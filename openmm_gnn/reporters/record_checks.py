"""Whether a frame may be stored: shapes, NaN by token, numbers that float16 cannot hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError

LARGEST_FLOAT16 = 65504.0


def check_embedding(
    step: int,
    embedding: np.ndarray,
    coordinates: np.ndarray,
    tokens_and_width: tuple[int, int],
    dtype: str,
    token_table: Any = None,
) -> None:
    """
    Args:
        embedding: (tokens, 4, H) before it is rounded to `dtype`.
        coordinates: (tokens, 3) nm.
        token_table: the table of the store's description, for the names of tokens.
    Raises:
        NonFiniteError: at the first token with a NaN or infinity.
        DataError: if a shape is not that of the store, or a number does not fit float16.
    """
    num_tokens, width = tokens_and_width
    if embedding.shape != (num_tokens, 4, width) or coordinates.shape != (num_tokens, 3):
        raise DataError(
            f"step {step}: embedding of shape {embedding.shape} and coordinates of shape {coordinates.shape}, the "
            f"store holds {(num_tokens, 4, width)} and {(num_tokens, 3)}: use the featurizer it was made with"
        )
    for what, values in (("coordinates", coordinates), ("embedding", embedding)):
        finite = np.isfinite(values.reshape(num_tokens, -1)).all(axis=1)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            raise NonFiniteError(
                f"step {step}: the {what} of token {token_name(token_table, int(bad[0]))} {_is(what)} NaN or infinite, "
                f"in {len(bad)} of {num_tokens} tokens: the frame is not stored; look at the simulation's positions, "
                "or at the encoder"
            )
    if dtype == "float16":
        largest = np.abs(embedding).reshape(num_tokens, -1).max(axis=1)
        if largest.max() > LARGEST_FLOAT16:
            token = int(largest.argmax())
            raise DataError(
                f"step {step}: the embedding of token {token_name(token_table, token)} reaches {largest[token]:.6g}, "
                f"float16 holds {LARGEST_FLOAT16:.0f}: make the store with dtype='float32'"
            )


def token_name(token_table: Any, index: int) -> str:
    """The number of a token, and its label where the table has one."""
    if isinstance(token_table, str):
        try:
            token_table = json.loads(token_table)
        except ValueError:
            token_table = None
    labels = token_table.get("labels") if isinstance(token_table, dict) else None
    return f"{index} ({labels[index]})" if isinstance(labels, list) and index < len(labels) else str(index)


def _is(what: str) -> str:
    return "are" if what == "coordinates" else "is"
