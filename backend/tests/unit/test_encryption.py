import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.security.encryption import Cipher, DecryptionFailed, key_id

OLD, NEW = os.urandom(32), os.urandom(32)
CONTEXT = "push_subscriptions/1/fcm_token"


@settings(derandomize=True, database=None, deadline=None)
@given(st.binary(max_size=300), st.text(max_size=50))
def test_what_is_encrypted_comes_back(plaintext: bytes, context: str) -> None:
    cipher = Cipher([NEW])
    assert cipher.decrypt(cipher.encrypt(plaintext, context=context), context=context) == plaintext


def test_the_same_value_never_looks_the_same() -> None:
    cipher = Cipher([NEW])
    seen = {cipher.encrypt(b"token", context=CONTEXT) for _ in range(100)}
    assert len(seen) == 100
    assert all(b"token" not in ciphertext for ciphertext in seen)


def test_every_altered_byte_is_noticed() -> None:
    cipher = Cipher([NEW])
    ciphertext = cipher.encrypt(b"secret", context=CONTEXT)
    for place in range(len(ciphertext)):
        altered = bytearray(ciphertext)
        altered[place] ^= 1
        with pytest.raises(DecryptionFailed):
            cipher.decrypt(bytes(altered), context=CONTEXT)


@pytest.mark.parametrize("length", [0, 1, 16, 17, 32])
def test_a_cut_off_value_is_noticed(length: int) -> None:
    cipher = Cipher([NEW])
    with pytest.raises(DecryptionFailed):
        cipher.decrypt(cipher.encrypt(b"secret", context=CONTEXT)[:length], context=CONTEXT)


def test_a_value_moved_to_another_row_does_not_decrypt() -> None:
    cipher = Cipher([NEW])
    ciphertext = cipher.encrypt(b"secret", context=CONTEXT)
    with pytest.raises(DecryptionFailed):
        cipher.decrypt(ciphertext, context="push_subscriptions/2/fcm_token")


def test_rotation_reads_the_old_and_writes_the_new() -> None:
    before, after = Cipher([OLD]), Cipher([NEW, OLD])
    old = before.encrypt(b"secret", context=CONTEXT)
    assert after.decrypt(old, context=CONTEXT) == b"secret"
    assert after.needs_rotation(old)
    fresh = after.encrypt(b"secret", context=CONTEXT)
    assert not after.needs_rotation(fresh)
    with pytest.raises(DecryptionFailed):
        before.decrypt(fresh, context=CONTEXT)


def test_a_key_s_name_says_nothing_about_it() -> None:
    assert key_id(OLD) != key_id(NEW)
    assert key_id(OLD) not in OLD
    with pytest.raises(ValueError, match="at least one key"):
        Cipher([])
