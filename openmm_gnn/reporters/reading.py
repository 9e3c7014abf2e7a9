"""How a trajectory is read and its features are kept."""

from __future__ import annotations

from dataclasses import dataclass

from openmm_gnn.base.checks import positive, whole


@dataclass(frozen=True)
class Reading:
    """How a trajectory is read and its features are kept."""

    stride: int = 1
    """Step from one frame of a file to the next one that is taken: 10 takes every tenth."""
    periodic: bool = True
    """Use the box of a file, where it has one."""
    frame_time_ps: float | None = None
    """Time between two frames of a file, ps, for formats without times (DCD, PDB). Default: the times of the file, NaN
    where it has none."""
    dtype: str = "float16"
    """Type of the stored features: float16 or float32."""
    chunk: int = 100
    """Frames that are read at once."""

    def __post_init__(self) -> None:
        whole(self, 1, "stride", "chunk")
        positive(self, "frame_time_ps")
