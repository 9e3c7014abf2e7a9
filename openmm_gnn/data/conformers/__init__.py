"""Conformations of molecules for pretraining: how they are made, imported and stored."""
