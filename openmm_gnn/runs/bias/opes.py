"""OPES: a bias from the probability along the CVs, estimated on the fly with kernels that are merged.

Sources: Invernizzi and Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020), doi 10.1021/acs.jpclett.0c00497, arXiv
1909.07250: eqs. 1 to 8 and the algorithm of its supporting information; for the exploring form Invernizzi and
Parrinello, J. Chem. Theory Comput. 18, 3988 (2022), doi 10.1021/acs.jctc.2c00152, eqs. 4 to 7. Departures: kernels are
merged by the masses they carry, not by their heights, so that a merged kernel has exactly the mass, mean and variance
of the two; Gaussians are not cut off; and kernels keep their width unless asked, where the sources narrow them as
frames are gathered: the fewer, the faster it is. Weights are exact for any width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K

MERGE_WIDTHS = 1.0
"""Kernels nearer than this, in widths of the one that is there, become one."""


class OpesBias:
    """V(s) = (1 - 1/gamma) kT log(P(s)/Z + epsilon), at least -barrier; P is the density of the unbiased frames.

    The exploring form takes P from the frames as they come, V(s) = (gamma - 1) kT log(P(s)/Z + epsilon): it leaves
    known places sooner, and its free energy converges later. Z is the mean of P over the kernels, so V is above zero
    where P is above that mean.
    """

    def __init__(
        self,
        widths: np.ndarray,
        barrier_kj_mol: float,
        temperature: float,
        bias_factor: float | None = None,
        explore: bool = False,
        shrink: bool = False,
    ) -> None:
        """
        Args:
            widths: (D,) standard deviations of a kernel; in the exploring form times sqrt(gamma), the width of the
                distribution that it samples.
            barrier_kj_mol: the highest barrier that is to be crossed, the depth of the bias where nothing was seen.
            temperature: K.
            bias_factor: gamma; None: barrier / kT, as the source has it.
            explore: take the exploring form.
            shrink: narrow new kernels as frames are gathered, by Silverman's rule for their effective number.
        Raises:
            SpecError: for a number out of range.
        """
        self.kernel_widths = np.array(widths, np.float64)
        self.num_cvs = len(self.kernel_widths)
        self.kt = BOLTZMANN_KJ_MOL_K * temperature
        self.barrier = barrier_kj_mol
        self.bias_factor = barrier_kj_mol / self.kt if bias_factor is None else bias_factor
        self.explore, self.shrink = explore, shrink
        if not (barrier_kj_mol > 0 and self.num_cvs and np.all(self.kernel_widths > 0) and self.bias_factor > 1):
            raise SpecError(
                f"OPES with a barrier of {barrier_kj_mol} kJ/mol, a bias factor of {self.bias_factor:.3g} and widths "
                f"{self.kernel_widths.tolist()}: give a barrier above kT ({self.kt:.2f} kJ/mol) and widths above 0"
            )
        self._prefactor = self.kt * (self.bias_factor - 1.0) / (1.0 if explore else self.bias_factor)
        self._epsilon = float(np.exp(-barrier_kj_mol / self._prefactor))
        self.centers = np.empty((0, self.num_cvs))
        self.widths = np.empty((0, self.num_cvs))
        self.masses = np.empty(0)
        self._least = np.zeros(self.num_cvs)
        self._sum_of_weights = self._sum_of_squares = 0.0
        self._density_at_centers = 0.0
        self._evaluated: tuple[np.ndarray, np.ndarray] | None = None
        """Heights of the kernels in P / Z, and reciprocals of their widths, between two deposits: a step needs both."""

    @property
    def depth(self) -> float:
        """Twice the largest |V''| of a single kernel, times its width squared, kJ/mol; at its edge or at its centre."""
        return max(self.barrier, 2 * self._prefactor)

    @property
    def log_z(self) -> float:
        """log of Z, the mean of P over the region that was explored (eq. 8)."""
        if not len(self.masses):
            return 0.0
        return float(np.log(self._density_at_centers / self._sum_of_weights / len(self.masses)))

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """kJ/mol, and (D,) its derivatives, at (D,) values."""
        if not len(self.masses):
            return -self.barrier, np.zeros(self.num_cvs)
        if self._evaluated is None:
            scale = np.exp(-self.log_z) / self._sum_of_weights
            self._evaluated = self.masses / self.widths.prod(axis=1) * scale, 1.0 / self.widths
        heights, per_width = self._evaluated
        away = (values - self.centers) * per_width
        kernels = heights * np.exp(-0.5 * np.einsum("kd,kd->k", away, away))
        ratio = float(kernels.sum()) + self._epsilon
        slope = -np.einsum("k,kd->d", kernels, away * per_width)
        return self._prefactor * math.log(ratio), slope * (self._prefactor / ratio)

    def energies(self, values: np.ndarray) -> np.ndarray:
        """(frames,) kJ/mol of (frames, D) values."""
        return np.array([self.value_and_gradient(row)[0] for row in np.asarray(values, np.float64)])

    def offset(self) -> float:
        """kT log Z, kJ/mol."""
        return self.kt * self.log_z

    def widen(self, least: np.ndarray) -> None:
        """From now on every kernel, those that are there too, is at least as wide as (D,) `least`."""
        self._least = np.maximum(self._least, least)
        if len(self.masses) and np.any(self.widths < self._least):
            self._evaluated = None
            self.widths = np.maximum(self.widths, self._least)
            self._density_at_centers = sum(float(self._kernels_from(away).sum()) for away in self._in_widths())

    def deposit(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Add a kernel at (D,) values, weighed by the bias there unless exploring.

        Returns:
            The logarithm of its weight, and its (D,) widths.
        """
        log_weight = 0.0 if self.explore else self.value_and_gradient(values)[0] / self.kt
        weight, widths = self._counted(log_weight)
        self._add(weight, np.array(values, np.float64), widths)
        return log_weight, widths

    def repeat(self, values: np.ndarray, height: float, widths: np.ndarray | None = None) -> None:
        """Add the kernel that a `deposit`, of this bias or another walker's, has added before.

        Args:
            height: the logarithm of its weight.
            widths: (D,) that it had; None: those of a next one.
        """
        weight, own = self._counted(height)
        used = own if widths is None else np.maximum(widths, self._least)
        self._add(weight, np.array(values, np.float64), used)

    def _counted(self, log_weight: float) -> tuple[float, np.ndarray]:
        """The weight of one more frame, counted, and the (D,) widths of its kernel."""
        self._evaluated = None
        weight = float(np.exp(log_weight))
        self._sum_of_weights += weight
        self._sum_of_squares += weight**2
        return weight, self._width_of_next()

    def _width_of_next(self) -> np.ndarray:
        """(D,) the width of the kernel whose weight was counted last; one of weight 1 is counted before all of them."""
        widths = self.kernel_widths * np.sqrt(self.bias_factor if self.explore else 1.0)
        if self.shrink:
            effective = (1.0 + self._sum_of_weights) ** 2 / (1.0 + self._sum_of_squares)
            widths = widths * (effective * (self.num_cvs + 2) / 4) ** (-1 / (self.num_cvs + 4))
        return np.maximum(widths, self._least)

    def _add(self, mass: float, center: np.ndarray, widths: np.ndarray) -> None:
        """Add a kernel, merged with its neighbours until none is near."""
        while len(self.masses):
            distances = np.square((center - self.centers) / self.widths).sum(axis=1)
            nearest = int(distances.argmin())
            if distances[nearest] >= MERGE_WIDTHS**2:
                break
            mass, center, widths = self._merged(nearest, mass, center, widths)
            self._remove(nearest)
        others = self._kernels_from((center - self.centers) / self.widths).sum() if len(self.masses) else 0.0
        own = _density(mass, (self.centers - center) / widths, widths).sum() if len(self.masses) else 0.0
        self._density_at_centers += float(others + own + _density(mass, np.zeros((1, self.num_cvs)), widths)[0])
        self.masses = np.append(self.masses, mass)
        self.centers = np.vstack([self.centers, center])
        self.widths = np.vstack([self.widths, widths])

    def _remove(self, index: int) -> None:
        others = self._kernels_from((self.centers[index] - self.centers) / self.widths).sum()
        own = _density(
            self.masses[index], (self.centers - self.centers[index]) / self.widths[index], self.widths[index]
        )
        at_itself = own[index]
        self._density_at_centers -= float(others + own.sum() - at_itself)
        self.masses = np.delete(self.masses, index)
        self.centers = np.delete(self.centers, index, axis=0)
        self.widths = np.delete(self.widths, index, axis=0)
        if not len(self.masses):
            self._density_at_centers = 0.0  # or a rounding error would stay

    def _merged(
        self, index: int, mass: float, center: np.ndarray, widths: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Mass, mean and standard deviations of two kernels together."""
        other_mass, other_center, other_widths = self.masses[index], self.centers[index], self.widths[index]
        total = mass + other_mass
        mean = (mass * center + other_mass * other_center) / total
        spread = mass * (widths**2 + (center - mean) ** 2) + other_mass * (other_widths**2 + (other_center - mean) ** 2)
        return float(total), mean, np.sqrt(spread / total)

    def _in_widths(self) -> Iterator[np.ndarray]:
        """Distances (kernels, D) of each centre in turn from all kernels, in widths of these."""
        return ((center - self.centers) / self.widths for center in self.centers)

    def _kernels_from(self, away: np.ndarray) -> np.ndarray:
        """(kernels,) densities at a point `away` from each, in its widths."""
        return self.masses * np.exp(-0.5 * np.square(away).sum(axis=1)) / self.widths.prod(axis=1)


def _density(mass: float, away: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The density of one kernel at each point, (points,), without the factors of 2 pi, which P / Z does not have."""
    return np.asarray(mass * np.exp(-0.5 * np.square(away).sum(axis=1)) / widths.prod())
