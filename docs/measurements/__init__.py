"""The measured tables and figures of README.md and docs/: what they share, and a module for each page."""

import matplotlib

matplotlib.use("Agg")
