"""Conversion factors and the one way in for quantities: OpenMM's units everywhere, plain numbers inside.

Lengths nm, times ps, energies kJ/mol, forces kJ/mol/nm, temperatures K. A number without a unit is taken
to be in these units already.
"""

from __future__ import annotations

from typing import Any

ANGSTROM_PER_NM = 10.0
KJ_PER_KCAL = 4.184
BOLTZMANN_KJ_MOL_K = 8.31446261815324e-3
"""Boltzmann constant times Avogadro constant, exact in the SI of 2019."""
KJ_MOL_PER_EV = 96.48533212331002
NM_PER_BOHR = 0.0529177210903
KJ_MOL_PER_HARTREE = 2625.4996394799
"""Both of CODATA 2018."""
MEV_PER_ANGSTROM_PER_KJ_MOL_NM = 1000.0 / KJ_MOL_PER_EV / ANGSTROM_PER_NM
"""Multiply a force in kJ/mol/nm by this to have it in meV/angstrom."""


def kinetic_temperature(kinetic: Any, freedom: Any) -> Any:
    """K of kinetic energies in kJ/mol that so many degrees of freedom share; numbers or arrays."""
    return 2 * kinetic / (freedom * BOLTZMANN_KJ_MOL_K)


def nanometers(length: Any) -> Any:
    """A length as plain numbers in nm; Quantities are converted, numbers taken as nm."""
    return _plain(length, "nanometer")


def picoseconds(time: Any) -> Any:
    """A time as plain numbers in ps; Quantities are converted, numbers taken as ps."""
    return _plain(time, "picosecond")


def kelvin(temperature: Any) -> Any:
    """A temperature as plain numbers in K; Quantities are converted, numbers taken as K."""
    return _plain(temperature, "kelvin")


def per_picosecond(rate: Any) -> Any:
    """A rate, such as a friction, as plain numbers in 1/ps; Quantities are converted, numbers taken as 1/ps."""
    return _plain(rate, "picosecond", inverse=True)


def dalton(mass: Any) -> Any:
    """A mass as plain numbers in dalton; Quantities are converted, numbers taken as dalton."""
    return _plain(mass, "dalton")


def _plain(value: Any, unit_name: str, inverse: bool = False) -> Any:
    if not hasattr(value, "value_in_unit"):
        return value
    from openmm import unit

    wanted = getattr(unit, unit_name)
    return value.value_in_unit(wanted**-1 if inverse else wanted)
