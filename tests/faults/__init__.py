"""lockdec broken on purpose: each test causes the fault it is about."""
