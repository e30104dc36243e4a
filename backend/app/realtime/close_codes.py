"""Codes that close a socket, each saying whether its client should come back (contract, WebSocket).

Below 4000 the cause passes: reconnect with full jitter and `since`. From 4000 on the same attempt
would fail again: change something first, such as the token.
"""

from enum import IntEnum
from typing import Self


class CloseCode(IntEnum):
    """Why the server closed a socket; `meaning` says it to who writes a client."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """A code with its meaning."""
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    SHUTTING_DOWN = 3001, "This process ends; come back, another one answers."
    TOKEN_EXPIRED = 3005, "The token expired; come back with a fresh one."
    TOO_SLOW = 3008, "Frames arrive faster than they are read; come back and resume."
    POSITION_LOST = 3010, "What was missed can no longer be told; come back and reload."
    NO_PING = 3012, "Nothing was heard for three heartbeat intervals; come back."
    GATEWAY_FULL = 3013, "This gateway holds all the sockets it may; come back, perhaps elsewhere."
    TRY_AGAIN_LATER = (
        3014,
        "The inbox, or the keys of tokens, cannot be read at the moment; come back.",
    )
    INVALID_MESSAGES = 4400, "Three messages were not JSON in a text frame; mend the client."
    NOT_AUTHENTICATED = 4401, "No token came in time, or it is not valid for this."
    ORIGIN_REFUSED = 4403, "The page's origin is not listed in `CORS_ORIGINS`."
    TOO_MANY_SOCKETS = 4429, "The user holds all the sockets one user may; close one first."

    @property
    def invites_back(self) -> bool:
        """Whether the client should reconnect by itself."""
        return self < CloseCode.INVALID_MESSAGES
