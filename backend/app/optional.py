"""Packages that libraries look for and import if they are there, though nothing here uses them.

They cost each process up to a quarter of its start, and whether they are there is chance: another
package brought them.
"""

import sys
from typing import Final

FOR_TERMINALS: Final = ("rich", "pygments")
"""Colours of tracebacks, for structlog, httpx and Mako."""

FOR_WEB: Final = ("fastapi",)
"""For TaskIQ; only what serves nothing itself can do without."""


def leave_out(packages: tuple[str, ...]) -> None:
    """Let packages seem missing to those that try to import them from now on."""
    for name in packages:
        sys.modules.setdefault(name, None)  # pyright: ignore[reportArgumentType] -- documented: such an import fails
