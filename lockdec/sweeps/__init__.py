"""Sweeps: their cells, progress, shared work, dry runs and searches."""
