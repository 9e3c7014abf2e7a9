"""The analysis of runs along slow variables and its report."""
