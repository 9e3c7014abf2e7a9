"""What float32 arithmetic leaves of a number: tolerances of tests follow from it, on any processor."""

from __future__ import annotations

import math

UNIT = 2.0**-24
"""Largest relative rounding of one float32 operation."""


def rounding_of_sum(num_terms: int, size: float) -> float:
    """Four standard deviations of the rounding of a float32 sum whose terms and partial sums are of this size.

    The roundings of n additions are as good as independent, so they add up to sqrt(n) of one.
    Source: Higham and Mary, SIAM J. Sci. Comput. 41, A2815 (2019), doi:10.1137/18M1226312.
    """
    return 4 * math.sqrt(num_terms) * UNIT * size


def rounding_of_table_slopes(num_intervals: int) -> float:
    """Rounding of the slope of a cubic between float32 knots, as a share of (value / length of the table).

    A slope in the middle of an interval is 1.5 times the difference of its two knots, each off by UNIT of its value.
    """
    return 1.5 * 2 * UNIT * num_intervals
