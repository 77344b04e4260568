"""Frozen encoders: one contract, many kinds."""
