"""Running the stages of a config: assembling them, their keys, and one run."""
