"""Sweeps: their cells, progress, shared stages, dry runs and searches."""
