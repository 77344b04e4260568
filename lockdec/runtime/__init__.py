"""What a process does before and around the work: devices, kernels, memory, signals."""
