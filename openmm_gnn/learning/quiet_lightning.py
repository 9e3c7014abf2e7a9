"""What Lightning says that a user can do nothing about."""

from __future__ import annotations

import logging
import warnings

_USELESS = ("Checkpoint directory .* exists and is not empty", ".*LeafSpec.* is deprecated")
"""Our runs are resumed in their own directory; the other is between Lightning and PyTorch."""


def quiet_lightning() -> None:
    """Leave warnings and errors that matter; to be called before a Trainer is made."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _USELESS:
        warnings.filterwarnings("ignore", message=message)
