"""The config: its schema beside its checks, and the building of what it names."""
