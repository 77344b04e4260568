"""lockdec as a library: what `lockdec.load` returns, and how it reads, captions, scores and draws.

Needs neither Hydra nor Lightning.
"""
