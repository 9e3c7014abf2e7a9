"""Running molecular dynamics: systems, settings, resumable runs."""
