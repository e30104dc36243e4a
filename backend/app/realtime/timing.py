"""Durations of the socket protocol that the contract and the design settle, in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the gateway waits for what.

    Args:
        authenticate_within: for the first message of a socket.
        hole_wait: for a change that is missing between two others, before it is read instead.
        compare_every: between two comparisons of all positions with PostgreSQL.
        retry_after: before a refill that found PostgreSQL away is tried again.
        flush_within: for a client to take a part of what it missed.
        sweep_every: between two looks at deadlines: tokens, heartbeats, authentication.
        acknowledge_after: in which acknowledgements are gathered for one statement.
        drain_within: for all sockets to take their close when the process ends.
    """

    authenticate_within: float = 10.0
    hole_wait: float = 0.05
    compare_every: float = 10.0
    retry_after: float = 1.0
    flush_within: float = 10.0
    sweep_every: float = 1.0
    acknowledge_after: float = 0.1
    drain_within: float = 3.0
