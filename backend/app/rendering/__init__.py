"""Templates: rendered in a process of its own, with bounded time, memory and output (REQ-004)."""
