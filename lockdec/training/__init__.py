"""How a module is trained: batches, the fit, divergence, and what is measured beside it."""
