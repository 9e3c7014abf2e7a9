"""The settings of `distill`: how many evaluations of the teacher, where geometries come from, how a student is made."""

from __future__ import annotations

from dataclasses import dataclass

from openmm_gnn.base.errors import SettingsError, at_least, positive, share, whole
from openmm_gnn.base.specs.force import NeighborSpec, VectorGAMDSpec

RELAX_CALLS = 60
"""Evaluations of the teacher, at most, that relax a start."""

BATCH_ATOMS, MOST_FRAMES = 700, 32


@dataclass(frozen=True)
class StudentSettings:
    """The network that is trained: a VectorGAMD, whose elements and force scale follow from the labels."""

    cutoff: float = 0.5
    """Distance below which the network sees pairs of atoms, nm."""
    width: int = 32
    """Number of scalars, and of vectors, of an atom; a multiple of 16."""
    num_layers: int = 2
    """Number of rounds of messages."""
    num_radial: int = 20
    """Number of spline coefficients of a radial function."""
    pair_cutoff: float = 0.0
    """Reach of a sum of pair splines for what is long-ranged, nm; 0: none."""
    conservative: bool = False
    """Predict an energy and derive the forces from it, instead of the forces directly, which costs half as much."""

    def spec(self, elements: tuple[int, ...], force_scale: float) -> VectorGAMDSpec:
        """The spec of the network.

        Args:
            elements: atomic numbers.
            force_scale: root mean square of a force component, kJ/mol/nm.
        Raises:
            SpecError: if a setting is out of range.
        """
        return VectorGAMDSpec(
            NeighborSpec(cutoff=self.cutoff),
            elements,
            width=self.width,
            num_layers=self.num_layers,
            num_radial=self.num_radial,
            pair_cutoff=self.pair_cutoff,
            conservative=self.conservative,
            force_scale=float(f"{force_scale:.6g}"),
        )


@dataclass(frozen=True)
class DistillSettings:
    """How many evaluations of the teacher are spent, on which geometries, and how long students learn from them."""

    teacher_calls: int = 5000
    """Largest number of evaluations of the teacher, those of the scan of steps included."""
    scan_calls: int = 2000
    """Evaluations of the teacher, out of those, that are left for the scan of steps and the validation; 0: neither."""
    first_calls: int = 1000
    """Evaluations of the teacher in the first round: steps of a run of its own, or frames that are there already."""
    labels: int = 300
    """Frames that the teacher labels in each later round, out of runs of the student."""
    rounds: int = 6
    """Largest number of rounds; they end earlier when the held-out force error stops falling."""
    least_gain: float = 0.05
    """Fall of the force error on the same held-out frames, as a share, below which no further round is begun."""
    hold_out: int = 10
    """Held-out frames, of runs of their own: 10 for every tenth label."""
    temperature: float | None = None
    """Temperature of the runs in K. Default: the system's."""
    hot: float = 1.5
    """Temperature of the hotter runs that geometries are taken from, in units of the temperature."""
    sample_ps: float = 10.0
    """Length of each run of a student, or of a cheap System, that geometries are taken from, ps."""
    num_steps: int = 1000
    """Number of optimisation steps in each round."""
    last_steps: int = 2500
    """Number of optimisation steps of the last training, on all labels."""
    batch_size: int | None = None
    """Number of frames per optimisation step. Default: as many as have 700 atoms together, 32 at most: gradients of
    fewer atoms are so noisy that training ends at twice the error."""
    learning_rate: float = 1e-2
    """Highest learning rate of the first round; later rounds begin with the network of the one before, and half."""
    hydrogen_mass: float | None = None
    """Mass of bonded hydrogens in dalton in all runs and in the steps that are tried. Default: 3 where the bonds of
    lighter hydrogens are free to vibrate, else masses stay as they are."""
    seed: int = 1
    """Random seed of runs, picks and training, 1 or more."""

    def __post_init__(self) -> None:
        whole(self, 1, "teacher_calls", "labels", "num_steps", "last_steps", "batch_size", "rounds", "seed")
        whole(self, 0, "scan_calls")
        whole(self, 20, "first_calls")
        whole(self, 2, "hold_out")
        share(self, "least_gain")
        positive(self, "temperature", "sample_ps", "learning_rate", "hydrogen_mass")
        at_least(self, 1, "hot")
        least = RELAX_CALLS + self.first_calls + self.scan_calls
        if self.teacher_calls < least:
            raise SettingsError(
                self,
                "teacher_calls",
                f"give at least {least}: {RELAX_CALLS} that relax the start, first_calls ({self.first_calls}) and "
                f"scan_calls ({self.scan_calls}), or less of these",
            )

    def batch(self, num_atoms: int) -> int:
        """Frames per optimisation step, each of this many atoms."""
        return self.batch_size or max(1, min(MOST_FRAMES, round(BATCH_ATOMS / num_atoms)))

    @property
    def label_calls(self) -> int:
        """Evaluations of the teacher for all but the scan and the validation."""
        return self.teacher_calls - self.scan_calls
