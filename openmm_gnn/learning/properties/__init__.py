"""Heads that predict properties of molecules, trained on labelled sets."""
