"""From a network to a module that OpenMM can call, and the checks that it stayed the same."""
