"""The style of all figures, and a figure that saves itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours of Okabe and Ito (jfly.uni-koeln.de/color), which people with any colour vision tell apart; line widths
# and dashes repeat the distinction for print without colour.
RUN_COLOR = "#D55E00"
REFERENCE_COLOR = "#0072B2"
COLORS = (REFERENCE_COLOR, RUN_COLOR, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of several series."""
QUIET_COLOR = "#6b6b6b"

STYLE: Any = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "axes.labelcolor": "#333333",
    "axes.edgecolor": "#888888",
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.dpi": 160,
}


@contextmanager
def figure_file(path: Path | str, width: float, height: float, title: str) -> Iterator[Figure]:
    """A figure of this size in inches, to draw into; saved as PNG (or whatever the path's ending says) in the end."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        # The object-oriented interface: no display is needed, and no state of pyplot is touched.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.suptitle(title, fontsize=13.5, fontweight="bold", x=0.01, ha="left")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
