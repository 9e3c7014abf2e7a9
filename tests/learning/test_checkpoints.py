"""A training's checkpoint that cannot be read is named, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from openmm_gnn.base.errors import DataError
from openmm_gnn.learning.trainer import CHECKPOINT, checkpoint_in


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert checkpoint_in(tmp_path) is None
    torch.save({"global_step": 7}, tmp_path / CHECKPOINT)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    assert checkpoint_in(tmp_path) == {"global_step": 7}
    for damaged in (whole[: len(whole) // 2], b"", b"{}", bytes(range(128, 256))):
        (tmp_path / CHECKPOINT).write_bytes(damaged)
        with pytest.raises(DataError, match=r"last.ckpt is damaged \(.*\): delete it to train from the start"):
            checkpoint_in(tmp_path)
