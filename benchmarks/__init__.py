"""Speed and memory beside the alternatives a user has: `python -m benchmarks`, and docs/performance.md."""
