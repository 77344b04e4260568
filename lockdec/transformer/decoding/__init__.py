"""Autoregressive decoding, to be read in this order: tokens, sampling, beam, caching, generation."""
