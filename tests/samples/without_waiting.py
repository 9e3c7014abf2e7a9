"""Fails where tensor operations make the host wait for a GPU, since what it does next depends on what they find."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "bincount", "masked_select", "nonzero", "unique", "unique_consecutive", "_unique2")
WAITING += ("repeat_interleave",)  # by a tensor; by a number it is an expansion, which has another name


class WithoutWaiting(TorchDispatchMode):
    """While it is entered, an operation that waits raises AssertionError."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        assert name not in WAITING, f"{name} waits for the device"
        return function(*args, **(kwargs or {}))
