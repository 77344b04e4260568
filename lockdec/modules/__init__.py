"""LightningModules: one training objective each, over `lockdec.modules.objective.Objective`."""
