"""Speed and memory beside what a user would take instead: `python -m benchmarks`, and docs/performance.md."""
