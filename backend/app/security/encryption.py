"""Encryption of single values at rest: AES-256-GCM with a key id and bound context (SEC-001).

Layout of a ciphertext: version (1 byte), key id (4), nonce (12), ciphertext and tag. The context
is authenticated but not stored, so a value copied into another table or row does not decrypt.
"""

import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = b"\x01"
KEY_ID_BYTES = 4
NONCE_BYTES = 12
HEADER_BYTES = len(VERSION) + KEY_ID_BYTES + NONCE_BYTES


class DecryptionFailed(Exception):
    """The ciphertext was altered, belongs elsewhere, or its key is gone."""


class Cipher:
    """Encrypts with the first key and decrypts with any.

    Args:
        keys: AES keys of 32 bytes, the current one first; add a key in front to rotate.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("at least one key is needed")
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self._current = key_id(keys[0])

    def encrypt(self, plaintext: bytes, *, context: str) -> bytes:
        """Ciphertext of `plaintext`.

        Args:
            context: where the value lives, such as `push_subscriptions/<id>/fcm_token`.
        """
        nonce = os.urandom(NONCE_BYTES)
        header = VERSION + self._current + nonce
        sealed = self._ciphers[self._current].encrypt(nonce, plaintext, _bound(header, context))
        return header + sealed

    def decrypt(self, ciphertext: bytes, *, context: str) -> bytes:
        """Plaintext of what `encrypt` made in the same context.

        Raises:
            DecryptionFailed: altered, out of context, or encrypted with an unknown key.
        """
        header = ciphertext[:HEADER_BYTES]
        used = header[len(VERSION) : len(VERSION) + KEY_ID_BYTES]
        cipher = self._ciphers.get(used)
        if len(header) < HEADER_BYTES or not header.startswith(VERSION) or cipher is None:
            raise DecryptionFailed("The value was not encrypted with a known key.")
        nonce = header[-NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, ciphertext[HEADER_BYTES:], _bound(header, context))
        except InvalidTag as error:
            raise DecryptionFailed("The value was altered or belongs elsewhere.") from error

    def needs_rotation(self, ciphertext: bytes) -> bool:
        """Whether the value was encrypted with another key than the current one."""
        return not ciphertext.startswith(VERSION + self._current)


def key_id(key: bytes) -> bytes:
    """Public name of a key: tells keys apart and says nothing about them."""
    return hashlib.sha256(b"notify key id" + key).digest()[:KEY_ID_BYTES]


def _bound(header: bytes, context: str) -> bytes:
    return header + context.encode()
