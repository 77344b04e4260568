"""Evaluation: metrics, controls, attention maps, and captioning with finished runs."""
