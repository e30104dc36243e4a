"""Keys of Web Push: what is taken for one, and what is not (REQ-008, SEC-003)."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.config import ConfigurationError
from app.load_settings import load_settings
from app.security.vapid_keys import (
    CURVE,
    VapidKey,
    auth_secret,
    configured_key,
    encoded,
    key_id_of,
    new_key,
    public_point,
    stored_key,
)

NOW = datetime(2026, 1, 8, 12, tzinfo=UTC)
KEY = stored_key((7).to_bytes(32, "big"), NOW)
OTHER = stored_key((8).to_bytes(32, "big"), NOW)


def private_pem(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def public_pem(key: Any) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def configured(public: str, private: str) -> VapidKey | None:
    settings = load_settings(
        _env_file=None,
        app_env="production",
        jwt_secret="x" * 32,
        internal_service_key="x" * 32,
        notification_encryption_key=base64.b64encode(b"x" * 32).decode(),
        vapid_public_key=public,
        vapid_private_key=private,
    )
    return configured_key(settings, NOW)


def test_a_key_comes_back_from_its_private_half() -> None:
    key = new_key(NOW)
    again = stored_key(key.scalar, NOW)
    assert (again.id, again.public) == (key.id, key.public)
    assert len(key.public) == 65
    assert key.id == key_id_of(key.public)
    assert len(key.id) == 16
    assert encoded(key.scalar) not in repr(key)


@pytest.mark.parametrize(
    ("public", "private"),
    [
        (KEY.public_text, encoded(KEY.scalar)),
        (f" {KEY.public_text}=\n", f"{encoded(KEY.scalar)}="),
        (public_pem(KEY.private), private_pem(KEY.private)),
        (public_pem(KEY.private).replace("\n", "\\n"), private_pem(KEY.private)),
        (KEY.public_text, private_pem(KEY.private).replace("\n", "\\n")),
    ],
)
def test_a_configured_pair_is_taken_in_every_spelling(public: str, private: str) -> None:
    key = configured(public, private)
    assert key is not None
    assert (key.id, key.scalar) == (KEY.id, KEY.scalar)


@pytest.mark.parametrize(
    ("public", "private", "named"),
    [
        (OTHER.public_text, encoded(KEY.scalar), "VAPID_PUBLIC_KEY: does not belong"),
        (encoded(KEY.scalar), encoded(KEY.scalar), "VAPID_PUBLIC_KEY: must be"),
        ("no key!", encoded(KEY.scalar), "VAPID_PUBLIC_KEY: must be"),
        (public_pem(ec.generate_private_key(ec.SECP384R1())), encoded(KEY.scalar), "PUBLIC_KEY"),
        (KEY.public_text, KEY.public_text, "VAPID_PRIVATE_KEY: must be"),
        (KEY.public_text, encoded(bytes(32)), "VAPID_PRIVATE_KEY: must be"),
        (KEY.public_text, encoded(b"\xff" * 32), "VAPID_PRIVATE_KEY: must be"),
        (KEY.public_text, "-----BEGIN PRIVATE KEY-----", "VAPID_PRIVATE_KEY: must be"),
        (
            KEY.public_text,
            private_pem(ec.generate_private_key(ec.SECP384R1())),
            "VAPID_PRIVATE_KEY: must be",
        ),
    ],
)
def test_a_configured_pair_that_is_none_is_named(public: str, private: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as error:
        configured(public, private)
    assert encoded(KEY.scalar) not in str(error.value)


def compressed(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.CompressedPoint
    return key.public_key().public_bytes(serialization.Encoding.X962, form)


P384 = (
    ec.generate_private_key(ec.SECP384R1())
    .public_key()
    .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
)
NO_POINTS = {
    "nothing": b"",
    "the point at infinity": b"\x00",
    "zeros": b"\x04" + bytes(64),
    "off the curve": KEY.public[:-1] + bytes([KEY.public[-1] ^ 1]),
    "beyond the field": b"\x04" + b"\xff" * 64,
    "compressed": compressed(KEY.private),
    "hybrid": bytes([6 + (KEY.public[-1] & 1)]) + KEY.public[1:],
    "one byte more": KEY.public + b"\x00",
    "one byte less": KEY.public[:-1],
    "another curve's": P384,
}


@pytest.mark.parametrize("name", NO_POINTS)
def test_what_is_no_point_on_the_curve_is_refused(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- of several sources
        public_point(encoded(NO_POINTS[name]))


@pytest.mark.parametrize("text", ["", "=", "+" * 87, "ä" * 87, "A" * 5, "A" * 10_000, "A A", "A\n"])
def test_what_is_no_base64url_is_no_key(text: str) -> None:
    for decode in (public_point, auth_secret):
        with pytest.raises(ValueError):  # noqa: PT011 -- of several sources
            decode(text)


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_secret_has_sixteen_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        auth_secret(encoded(b"a" * size) or "AA")


def test_keys_are_taken_with_padding_and_without() -> None:
    secret = encoded(b"a" * 16)
    assert auth_secret(secret) == auth_secret(f"{secret}==") == b"a" * 16
    assert public_point(KEY.public_text) == public_point(f"{KEY.public_text}=") == KEY.public
    assert KEY.private.curve.name == CURVE.name
