"""Autoregressive decoding: caches and strategies."""
