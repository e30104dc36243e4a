"""Codes that close a socket, each saying whether its client should come back (contract, WebSocket).

Below 4000 the cause passes: reconnect with full jitter and `since`. From 4000 on the same attempt
would fail again: change something first, such as the token.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """Why the server closed a socket."""

    TRY_AGAIN_LATER = 1013
    """The inbox, or the keys of tokens, cannot be read at the moment; come back."""

    SHUTTING_DOWN = 3001
    """This process ends; come back, another one answers."""

    TOKEN_EXPIRED = 3005
    """Come back with a fresh token."""

    TOO_SLOW = 3008
    """The client reads more slowly than frames arrive; come back and resume."""

    POSITION_LOST = 3010
    """What the client missed can no longer be told; come back and reload."""

    NO_PING = 3012
    """Nothing was heard for three heartbeat intervals; come back."""

    GATEWAY_FULL = 3013
    """This gateway holds all the sockets it may; come back, perhaps to another one."""

    INVALID_MESSAGES = 4400
    """Three messages were not JSON; mend the client."""

    NOT_AUTHENTICATED = 4401
    """No token came in time, or it is not valid for this."""

    ORIGIN_REFUSED = 4403
    """The page's origin is not listed in `CORS_ORIGINS`."""

    TOO_MANY_SOCKETS = 4429
    """The user holds all the sockets one user may; close one first."""

    @property
    def invites_back(self) -> bool:
        """Whether the client should reconnect by itself."""
        return self < CloseCode.INVALID_MESSAGES
