"""Well-tempered metadynamics on a grid.

Source: Barducci, Bussi, Parrinello, Phys. Rev. Lett. 100, 020603 (2008), arXiv 0803.3861; the offset c(t): Tiwary and
Parrinello, J. Phys. Chem. B 119, 736 (2015), doi 10.1021/jp504920s, eq. 12.
"""

from __future__ import annotations

import numpy as np

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K

POINTS_PER_WIDTH = 4
MOST_POINTS = 4_000_000
MOST_CVS = 3
_CUT = 6.5
"""Widths at which a hill ends; it is 1e-9 of its height there."""


class MetadynamicsBias:
    """The sum of the hills on a grid, interpolated by cubic convolution: continuous with its gradient.

    Source of the interpolation: Keys, IEEE Trans. Acoust. Speech Signal Process. 29, 1153 (1981), eq. 15,
    doi 10.1109/TASSP.1981.1163711. Beyond the grid the bias keeps the value of the edge, and pulls nowhere.
    """

    def __init__(
        self,
        lower: np.ndarray,
        upper: np.ndarray,
        widths: np.ndarray,
        height_kj_mol: float,
        bias_factor: float,
        temperature: float,
    ) -> None:
        """
        Args:
            lower, upper: (D,) the ends of the grid, D at most 3.
            widths: (D,) standard deviations of a hill.
            height_kj_mol: height of the first hill.
            bias_factor: above 1.
            temperature: K.
        Raises:
            SpecError: for a number out of range, or a grid that is too large.
        """
        self.widths = np.array(widths, np.float64)
        self.num_cvs = len(self.widths)
        if not 1 <= self.num_cvs <= MOST_CVS:
            raise SpecError(
                f"metadynamics along {self.num_cvs} CVs: its grid takes 1 to {MOST_CVS}; choose outputs, or OPES"
            )
        if not (bias_factor > 1 and height_kj_mol > 0 and temperature > 0 and np.all(self.widths > 0)):
            raise SpecError(
                f"a bias factor of {bias_factor}, hills of {height_kj_mol} kJ/mol and widths {self.widths.tolist()}: "
                "give a factor above 1, and heights and widths above 0"
            )
        self.height, self.bias_factor = height_kj_mol, bias_factor
        self.kt = BOLTZMANN_KJ_MOL_K * temperature
        self.lower = np.array(lower, np.float64)
        length = np.asarray(upper, np.float64) - self.lower
        self.shape = tuple(int(count) for count in np.ceil(length / self.widths * POINTS_PER_WIDTH).astype(int) + 4)
        if np.prod(self.shape, dtype=float) > MOST_POINTS or not np.all(length > 0):
            raise SpecError(
                f"a grid of {self.shape} points for hills {self.widths.tolist()} wide, at most {MOST_POINTS} are "
                "allowed: give wider hills (--bias-width), or choose fewer outputs"
            )
        self.spacing = length / (np.array(self.shape) - 1)
        self.axes = [
            low + step * np.arange(count) for low, step, count in zip(self.lower, self.spacing, self.shape, strict=True)
        ]
        self.grid = np.zeros(self.shape)
        self._least = np.zeros(self.num_cvs)
        self._hills: list[tuple[np.ndarray, float, np.ndarray]] = []
        """Centre, height and widths of each hill."""

    @property
    def depth(self) -> float:
        """Height to which hills may be stacked, kJ/mol: the barrier that the bias factor suits."""
        return self.bias_factor * self.kt

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """kJ/mol, and (D,) its derivatives, at (D,) values."""
        gradient = np.empty(self.num_cvs)
        weights, slopes, cuts = [], [], []
        for axis in range(self.num_cvs):
            last = self.shape[axis] - 1
            place = (values[axis] - self.lower[axis]) / self.spacing[axis]
            inside = 1.0 <= place <= last - 1
            place = min(max(place, 1.0), last - 1.0)
            cell = min(int(place), last - 2)
            weight, slope = _cubic(place - cell)
            weights.append(weight)
            slopes.append(slope / self.spacing[axis] if inside else np.zeros(4))
            cuts.append(slice(cell - 1, cell + 3))
        block = self.grid[tuple(cuts)]
        for axis in range(self.num_cvs):
            gradient[axis] = _contract(block, [slopes[k] if k == axis else weights[k] for k in range(self.num_cvs)])
        return _contract(block, weights), gradient

    def energies(self, values: np.ndarray) -> np.ndarray:
        """(frames,) kJ/mol of (frames, D) values."""
        return np.array([self.value_and_gradient(row)[0] for row in np.asarray(values, np.float64)])

    def widen(self, least: np.ndarray) -> None:
        """From now on every hill, those that are there too, is at least as wide as (D,) `least`."""
        self._least = np.maximum(self._least, least)
        if any(np.any(widths < self._least) for _, _, widths in self._hills):
            hills, self._hills = self._hills, []
            self.grid[...] = 0.0
            for values, height, widths in hills:
                self.repeat(values, height, widths)

    def deposit(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Add a hill at (D,) values, as high as the bias there allows.

        Returns:
            Its height in kJ/mol, and its (D,) widths.
        """
        height = self.height * float(np.exp(-self.value_and_gradient(values)[0] / (self.kt * (self.bias_factor - 1))))
        self.repeat(values, height)
        return height, self._hills[-1][2]

    def repeat(self, values: np.ndarray, height: float, widths: np.ndarray | None = None) -> None:
        """Add the hill that a `deposit`, of this bias or another walker's, has added before.

        Args:
            widths: (D,) that it had; None: its own.
        """
        widths = np.maximum(self.widths if widths is None else widths, self._least)
        self._hills.append((np.array(values), height, widths))
        factors, cuts = [], []
        for axis, points in enumerate(self.axes):
            away = (points - values[axis]) / widths[axis]
            first, end = np.searchsorted(away, [-_CUT, _CUT])
            cuts.append(slice(int(first), int(end)))
            factors.append(np.exp(-0.5 * np.square(away[first:end])))
        hill = factors[0]
        for factor in factors[1:]:
            hill = np.multiply.outer(hill, factor)
        self.grid[tuple(cuts)] += height * hill

    def offset(self) -> float:
        """c(t), kJ/mol: V - c(t) is what a frame of this moment is weighed with."""
        scaled = self.grid / self.kt
        grown = self.bias_factor / (self.bias_factor - 1)
        return self.kt * (_log_sum_exp(grown * scaled) - _log_sum_exp(scaled / (self.bias_factor - 1)))


def _cubic(fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of four points in a row, and their derivatives, at a fraction of the way from the second to the third."""
    t = fraction
    weights = (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    slopes = (
        (-1.5 * t + 2.0) * t - 0.5,
        (4.5 * t - 5.0) * t,
        (-4.5 * t + 4.0) * t + 0.5,
        (1.5 * t - 1.0) * t,
    )
    return np.array(weights), np.array(slopes)


def _contract(block: np.ndarray, factors: list[np.ndarray]) -> float:
    for factor in reversed(factors):
        block = block @ factor
    return float(block)


def _log_sum_exp(values: np.ndarray) -> float:
    highest = float(values.max())
    return highest + float(np.log(np.exp(values - highest).sum()))
