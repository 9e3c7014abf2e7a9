"""From an expensive System to a network that accelerates it: labels, rounds of training, scan of steps, report."""
