"""The browser's end of message encryption (RFC 8291), opened by the standard author's library.

It is another implementation than the sender's, so that one that misreads the standard is found out.
"""

import struct

import http_ece
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from app.sandbox.push.errors import PushRefused
from app.sandbox.push.vapid import public_key

MAX_BODY = 4096

_SALT = 16
_RECORD_SIZE = 4
_POINT = 65
_HEADER = _SALT + _RECORD_SIZE + 1 + _POINT
_SMALLEST_RECORD = 18


def opened(body: bytes, *, private_key: EllipticCurvePrivateKey, auth: bytes) -> bytes:
    """The plaintext of an `aes128gcm` body.

    Args:
        body: header and one record (RFC 8188, 2.1).
        private_key: the subscription's.
        auth: its authentication secret, 16 bytes.

    Raises:
        PushRefused: 400, it was not encrypted for this subscription as RFC 8291 says.
    """
    if len(body) < _HEADER + _SMALLEST_RECORD - 1 or body[_HEADER - _POINT - 1] != _POINT:
        raise _unreadable("its header must have a salt, a record size and the sender's point")
    (record_size,) = struct.unpack_from("!L", body, _SALT)
    if not max(_SMALLEST_RECORD, len(body) - _HEADER) <= record_size:
        raise _unreadable("it must be one record, no longer than the record size says")
    try:
        public_key(body[_HEADER - _POINT : _HEADER])
        return http_ece.decrypt(  # pyright: ignore[reportUnknownMemberType] -- http-ece has no types
            body, private_key=private_key, auth_secret=auth, version="aes128gcm"
        )
    except ValueError:
        raise _unreadable("the sender's point is not on P-256") from None
    except http_ece.ECEException as error:
        raise _unreadable(str(error)) from None


def _unreadable(why: str) -> PushRefused:
    return PushRefused(400, "BadEncryption", f"The browser cannot decrypt the body: {why}.")
