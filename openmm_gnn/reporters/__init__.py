"""Features of a running simulation: the store on disk, the reporter that fills it, readers that follow it."""
