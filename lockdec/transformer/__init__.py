"""The transformer, written from scratch: attention, positions, layers, models, generation."""
