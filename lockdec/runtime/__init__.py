"""The process around the work: devices, kernels, memory and signals."""
