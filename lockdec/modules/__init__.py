"""LightningModules, one training objective each."""
