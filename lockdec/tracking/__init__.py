"""W&B, TensorBoard and CSV; dashboards as code."""
