"""Stops a run at the first step that is wrong, says what broke there, and keeps the last good frame.

A network asked about an arrangement it never met may answer with forces that tear the system apart. By the time
a reporter looks, every atom is elsewhere. So the guard keeps a snapshot of the last good report in memory; when
something is wrong it returns there and repeats the interval one step at a time, until it meets the first step
and the first atom that broke.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import openmm
from openmm import app

from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.md.simulation_system import is_periodic_system
from openmm_gnn.md.state_checks import FiniteNumbers, StateCheck

LAST_GOOD_PDB = "last_good.pdb"
LAST_GOOD_STATE = "last_good_state.xml"


class RunGuard:
    """Steps a Context and stops at the first position, velocity or force that is not finite, or other sign of trouble.

    Args:
        context: holds the positions to start from.
        topology: names the atoms.
        directory: where the last good frame is written when the run breaks.
        groups: force groups of the energy and forces that are looked at and returned; all of them if None.
        check: called after every `step`, to raise what a force written in Python met.
        suspect: says what else may have broken the run, for the message of the error.
        checks: what else is looked at after every `step`.
    """

    def __init__(
        self,
        context: openmm.Context,
        topology: app.Topology,
        directory: Path,
        groups: frozenset[int] | None = None,
        check: Callable[[], None] = lambda: None,
        suspect: Callable[[], str] = lambda: "",
        checks: Sequence[StateCheck] = (),
    ) -> None:
        self._context = context
        self._groups: set[int] | int = -1 if groups is None else set(groups)
        self._topology = copy.copy(topology)  # its box follows the last good frame; a deep copy loses its bonds' atoms
        self._directory = Path(directory)
        self._check, self._suspect = check, suspect
        self._checks: tuple[StateCheck, ...] = (FiniteNumbers(topology), *checks)
        self._state: openmm.State | None = None
        self.snapshot: bytes = context.createCheckpoint()
        """OpenMM's checkpoint of the last good state."""

    @property
    def state(self) -> openmm.State:
        """The last good state: positions (unwrapped), velocities, forces, energy."""
        if self._state is None:
            self._state = self._full_state()
        return self._state

    def step(self, num_steps: int) -> None:
        """Run `num_steps`.

        Raises:
            NonFiniteError: names the step, the atom and the file with the last good frame.
            openmm.OpenMMException: any other error of OpenMM, as it came.
        """
        try:
            self._advance(num_steps)
            state = self._full_state()
        except openmm.OpenMMException as error:
            self._stop(num_steps, error)
        if self._fault(state) is not None:
            self._stop(num_steps, None)
        self._state, self.snapshot = state, self._context.createCheckpoint()
        self._check()

    def _advance(self, num_steps: int) -> None:
        """Steps of the run: where one is several of OpenMM's, the Context counts those of the run all the same."""
        integrator, count = self._context.getIntegrator(), self._context.getStepCount()
        several = getattr(integrator, "steps_per_outer_step", 1)
        integrator.step(num_steps * several)
        if several > 1:
            self._context.setStepCount(count + num_steps)

    def _stop(self, num_steps: int, error: openmm.OpenMMException | None) -> NoReturn:
        """Return to the snapshot, repeat the interval step by step, and say what broke first."""
        self._context.loadCheckpoint(self.snapshot)
        fault, good = self._look()
        if fault is not None:
            raise NonFiniteError(f"{fault}. It was so before the first step: mend the start") from error
        for _ in range(num_steps):
            if good is None:
                break  # an error of OpenMM's own, with finite positions: not ours to name
            try:
                self._advance(1)
            except openmm.OpenMMException as step_error:
                error = error or step_error
            fault, state = self._look()
            if fault is not None:
                raise NonFiniteError(self._message(fault, good)) from error
            good = state
        raise error or NonFiniteError(
            "the run went wrong, but not when the same steps were repeated one by one: it is not reproducible on this "
            "platform; try the Reference platform"
        )

    def _look(self) -> tuple[str | None, openmm.State | None]:
        """The fault of the present state if there is one; a state of None if its forces cannot be computed."""
        try:
            state = self._full_state()
        except openmm.OpenMMException:
            return self._checks[0].fault(self._context.getState(positions=True, velocities=True)), None
        return self._fault(state), state

    def _fault(self, state: openmm.State) -> str | None:
        return next((fault for check in self._checks if (fault := check.fault(state)) is not None), None)

    def _full_state(self) -> openmm.State:
        return self._context.getState(
            positions=True,
            velocities=True,
            forces=True,
            energy=True,
            parameters=True,
            integratorParameters=True,
            groups=self._groups,
        )

    def _message(self, fault: str, good: openmm.State) -> str:
        pdb_path = self._write(good)
        return (
            f"{fault}. The last good frame, step {good.getStepCount()}, is saved in {pdb_path} "
            f"(full state: {LAST_GOOD_STATE} beside it). Look there for atoms that are too close; "
            f"a shorter time step, or a model trained on such frames, helps{self._suspect()}"
        )

    def _write(self, state: openmm.State) -> Path:
        """The frame as PDB, wrapped into the box because a PDB column is narrow, and as exact XML."""
        positions = _values(state.getPositions(asNumpy=True))
        periodic = is_periodic_system(self._context.getSystem())
        self._topology.setPeriodicBoxVectors(state.getPeriodicBoxVectors() if periodic else None)
        if periodic:
            box = _values(state.getPeriodicBoxVectors(asNumpy=True))
            positions = positions - np.floor(positions @ np.linalg.inv(box)) @ box
        pdb_path = self._directory / LAST_GOOD_PDB
        with open(pdb_path, "w") as file:
            app.PDBFile.writeFile(self._topology, positions * openmm.unit.nanometer, file, keepIds=True)
        (self._directory / LAST_GOOD_STATE).write_text(openmm.XmlSerializer.serialize(state))
        return pdb_path


def _values(quantity: object) -> np.ndarray:
    return np.asarray(quantity._value)  # type: ignore[attr-defined]
