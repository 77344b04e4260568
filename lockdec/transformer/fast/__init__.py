"""What is fast and not needed to understand the transformer; each path is tested equal to the plain one."""
