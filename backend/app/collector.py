"""The garbage collector, told what a long-running part of the program looks like.

After start-up the heap holds some hundred thousand objects that live as long as the process:
modules, schemas, routes. Left alone the collector walks all of them every few thousand requests,
which took a third of the API's processor time under load.
"""

import gc

YOUNG = 5_000  # new containers before a look at the youngest; most die with their request


def leave_startup_alone() -> None:
    """Keep what exists by now out of all later collections; call it once, before serving."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
