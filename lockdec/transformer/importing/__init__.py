"""Checkpoints of others."""
