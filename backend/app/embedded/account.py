"""Who the servers run as, and that this user can reach its files.

PostgreSQL refuses to run as root, so root lends both servers a user of their own.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from app.config import ConfigurationError
from app.embedded.binaries import ensure_folder_permissions, ensure_user_exists
from app.embedded.program import Account

_SYSTEM_USER = "pgserver"
_OTHERS_TRAVERSE = 0o001
_OTHERS_USE = 0o005


@cache
def service_account() -> Account | None:
    """The user the servers run as, created on first use; `None`: the one we run as.

    Raises:
        ConfigurationError: we are root and cannot create that user.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = ensure_user_exists(_SYSTEM_USER)
    except (OSError, subprocess.CalledProcessError):
        entry = None
    try:
        # Of several programs that create the user at once, all but one fail and find it here.
        entry = entry or pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and the system user {_SYSTEM_USER} cannot be "
            "created. Start as a normal user, or set DATABASE_URL and REDIS_URL"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def make_reachable(path: Path, account: Account | None) -> None:
    """Let another user pass through the directories above `path`; they stay unlistable.

    Raises:
        OSError: a directory's mode cannot be changed.
    """
    if account is None:
        return
    for directory in path.parents:
        mode = directory.stat().st_mode
        if not mode & _OTHERS_TRAVERSE:
            directory.chmod(mode | _OTHERS_TRAVERSE)


def make_executable(installation: Sequence[Path], account: Account | None) -> None:
    """Let another user run the programs in folders that were installed for their owner only.

    Raises:
        OSError: a mode cannot be changed.
    """
    if account is None:
        return
    for folder in installation:
        make_reachable(folder, account)
        if folder.stat().st_mode & _OTHERS_USE != _OTHERS_USE:
            ensure_folder_permissions(folder, _OTHERS_USE)


def own_directory(path: Path, account: Account | None) -> None:
    """Make a directory that only the servers' user can look into.

    Raises:
        ConfigurationError: it exists and belongs to somebody else.
        OSError: it cannot be made.
    """
    if not path.exists():
        path.mkdir(mode=0o700)
        give(path, account)
    needed = os.geteuid() if account is None else account.uid
    owner = path.stat().st_uid
    if owner != needed:
        raise ConfigurationError(
            f"DATA_DIR: {path} belongs to {_user_name(owner)}, but this start needs it to belong "
            f"to {_user_name(needed)}. Start as the user of the first start, choose another "
            f"DATA_DIR, or change the owner of everything in {path.parent}"
        )


def give(path: Path, account: Account | None) -> None:
    """Let the servers' user own a file or directory of ours.

    Raises:
        OSError: the file system does not allow it.
    """
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _user_name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"
