"""What decides: plans, the commit protocol, drivers."""
