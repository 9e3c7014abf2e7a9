"""The style of all figures, a figure that saves itself, a table for the terminal, and a page of HTML in one file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox
    from rich.table import Table

# Colours of Okabe and Ito (jfly.uni-koeln.de/color), which people with any colour vision tell apart; line widths
# and dashes repeat the distinction for print without colour.
RUN_COLOR = "#D55E00"
REFERENCE_COLOR = "#0072B2"
COLORS = (REFERENCE_COLOR, RUN_COLOR, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours of several series."""
QUIET_COLOR = "#6b6b6b"

DOTS_PER_INCH = 160
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
    "legend.fontsize": 9,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "figure.facecolor": "white",
    "savefig.dpi": DOTS_PER_INCH,
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
        _free_legends(figure)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


def _free_legends(figure: Figure) -> None:
    """Raise the upper end of the axes whose legend covers a curve or a band, so that it stands above them."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is None or not _covers(axes, box := legend.get_window_extent().padded(5)):
            continue
        share = min(0.7, box.height / axes.bbox.height)
        scale = axes.yaxis.get_transform()
        low, high = scale.transform(np.array(axes.get_ylim()))
        axes.set_ylim(top=float(scale.inverted().transform(np.array([low + (high - low) / (1 - share)]))[0]))
        legend.set_loc("upper right")


def _covers(axes: Axes, box: Bbox) -> bool:
    """Whether a box, in pixels, covers a part of a curve or of a filled band; lines across the axes do not count."""
    curves = [line for line in axes.lines if np.size(line.get_path().vertices) > 4]
    if any(line.get_transform().transform_path(line.get_path()).intersects_bbox(box, filled=False) for line in curves):
        return True
    bands = [band for band in axes.collections if band.get_transform() == axes.transData]
    return any(
        path.transformed(axes.transData).intersects_bbox(box, filled=True)
        for band in bands
        for path in band.get_paths()
    )


LONGEST_WORD = 12
"""Letters of a word that a narrow terminal leaves in one line."""


def terminal_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,)
) -> Table:
    """A table for the terminal; its columns are aligned at the right, apart from those of these numbers."""
    from rich.table import Table
    from rich.text import Text

    table, rows = Table(title=title, title_justify="left"), list(rows)
    for column, heading in enumerate(headings):
        words = [word for row in rows for word in Text.from_markup(row[column]).plain.split()] if column in left else []
        whole = min(LONGEST_WORD, max(map(len, words), default=1))
        table.add_column(heading, justify="left" if column in left else "right", overflow="fold", min_width=whole)
    for row in rows:
        table.add_row(*row)
    return table


_STYLE = """
:root { --ink: #1f2933; --quiet: #616e7c; --line: #d9dee4; --paper: #ffffff; --ground: #f4f6f8; --mark: #0072B2; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.22rem; margin: 0 0 .5rem; }
p { margin: .35rem 0 .8rem; max-width: 75ch; }
.lead { color: var(--quiet); font-size: 1.04rem; }
nav { margin: 1.1rem 0 1.4rem; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .93rem; }
a { color: var(--mark); text-decoration: none; } a:hover { text-decoration: underline; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 1.2rem 1.4rem;
  margin: 0 0 1.1rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: .8rem; margin: 0 0 1.1rem; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.45rem; letter-spacing: -.01em; font-variant-numeric: tabular-nums; }
.card span { color: var(--quiet); font-size: .88rem; }
.warnings { border-left: 5px solid #E69F00; } .fine { border-left: 5px solid #009E73; }
figure { margin: .6rem 0 1rem; } img { max-width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .93rem; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem; }
th { text-align: left; color: var(--quiet); font-weight: 600; border-bottom: 1.5px solid var(--line); }
th, td { padding: .28rem 1.1rem .28rem 0; vertical-align: top; } td { border-bottom: 1px solid #eef1f4; }
td.number, th.number { text-align: right; }
code, pre { font: .88rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--ground); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; margin: .4rem 0 .8rem; }
ul { margin: .2rem 0; padding-left: 1.2rem; } li { margin: .25rem 0; }
@media print { body { background: white; } section, .card { break-inside: avoid; } nav { display: none; } }
"""


_PIXELS_PER_INCH = 88
"""Size of a figure on a page; one of 11.2 inches is as wide as the page."""


class Page:
    """Collects the parts of a page; `write` makes the file. All text is escaped."""

    def __init__(self, title: str, lead: str) -> None:
        self.title = title
        self._lead = lead
        self._before: list[str] = []
        self._sections: list[tuple[str, list[str], str]] = []

    def cards(self, figures: Sequence[tuple[str, str]]) -> None:
        """Numbers to be seen first: (value, what it is)."""
        cards = (
            f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in figures
        )
        self._before.append(f'<div class="cards">{"".join(cards)}</div>')

    def section(self, heading: str, kind: str = "") -> None:
        """What is added from now on stands under this heading.

        Args:
            kind: "warnings" or "fine", for a mark at its side.
        """
        self._sections.append((heading, [], kind))

    def words(self, text: str) -> None:
        self._add(f"<p>{escape(text)}</p>")

    def command(self, text: str) -> None:
        self._add(f"<pre>{escape(text)}</pre>")

    def points(self, lines: Sequence[str]) -> None:
        """A list."""
        self._add(f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")

    def figure(self, path: Path, what: str) -> None:
        """A PNG, taken into the page.

        Args:
            what: it shows, for people who do not see it.
        """
        png = path.read_bytes()
        inches = int.from_bytes(png[16:20], "big") / DOTS_PER_INCH
        width = inches * _PIXELS_PER_INCH  # so that letters have one size in all figures
        image = f'alt="{escape(what)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"'
        self._add(f'<figure><img style="width: {width:.0f}px" {image}></figure>')

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> None:
        """Add a table to the page.

        Args:
            numbers: whether all columns but the first are aligned at the right.
        """
        kinds = ["" if column == 0 or not numbers else ' class="number"' for column in range(len(headings))]
        head = "".join(f"<th{kind}>{escape(text)}</th>" for kind, text in zip(kinds, headings, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
            for row in rows
        )
        self._add(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')

    def html(self) -> str:
        """The whole page."""
        links = "".join(
            f'<a href="#part-{number}">{escape(heading)}</a>' for number, (heading, _, _) in enumerate(self._sections)
        )
        sections = "".join(
            f'<section id="part-{number}" class="{kind}"><h2>{escape(heading)}</h2>{"".join(parts)}</section>'
            for number, (heading, parts, kind) in enumerate(self._sections)
        )
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body><main>"
            f'<h1>{escape(self.title)}</h1><p class="lead">{escape(self._lead)}</p><nav>{links}</nav>'
            f"{''.join(self._before)}{sections}</main></body></html>\n"
        )

    def write(self, path: Path) -> Path:
        """The file is complete or not there at all."""
        write_atomically(path, self.html().encode())
        return path

    def _add(self, part: str) -> None:
        self._sections[-1][1].append(part)
