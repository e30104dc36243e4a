"""The garbage collector, told what a long-running part of the program looks like.

After start-up the heap holds some hundred thousand objects that live as long as the process:
modules, schemas, routes. Left alone the collector walks all of them again and again while they are
made, a quarter of the time that a start takes, and later every few thousand requests, which took a
third of the API's processor time under load.
"""

import gc

STARTING = 300_000  # new containers before a look at the youngest; no part makes more at its start
YOUNG = 5_000  # the same while it serves; most die with their request


def start_undisturbed() -> None:
    """Look at nothing while the program loads; a part calls `leave_startup_alone` after that."""
    gc.set_threshold(STARTING, *gc.get_threshold()[1:])


def leave_startup_alone() -> None:
    """Keep what exists by now out of all later collections; call it once, before serving."""
    # To look for the little garbage in it first would take longer than it is worth.
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
