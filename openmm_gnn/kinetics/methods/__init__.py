"""Methods that learn slow variables: a file for each member of `kinetics.settings.Method`, behind one interface."""
