"""Encrypts for one browser (RFC 8291), with `webpush`'s implementation."""

from webpush import WebPush
from webpush.types import WebPushKeys, WebPushSubscription

RECORD_SIZE = 4_096  # bytes; what every push service takes


class UnusableKeys(Exception):
    """What a browser gave us are no keys."""


class Encryption(WebPush):
    """The library's sender without the keys it signs with: tokens are ours, signed once for many.

    Each message has an ephemeral key pair and a salt of its own.
    """

    def __init__(self) -> None:
        self.max_resord_size = RECORD_SIZE  # the library's spelling

    def encrypt(self, message: bytes, *, p256dh: str, auth: str) -> bytes:
        """One record of `aes128gcm`, with its header.

        Args:
            message: at most 3,993 bytes.
            p256dh: the browser's public key, base64url.
            auth: its secret, base64url.

        Raises:
            UnusableKeys: they are none.
        """
        keys = WebPushKeys.model_construct(auth=auth, p256dh=p256dh)
        try:
            return self._encrypt(message, WebPushSubscription.model_construct(keys=keys))
        except ValueError as error:
            raise UnusableKeys from error
