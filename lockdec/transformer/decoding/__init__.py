"""Autoregressive decoding. Read it in this order: tokens, sampling, beam, caching, generation."""
