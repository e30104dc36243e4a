"""RFC 8291, Appendix A, and what else encryption must hold to (REQ-006)."""

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from app.channels.web_push_encryption import Encryption, UnusableKeys
from tests.pushing import Browser, decoded, encoded, point

PLAINTEXT = b"When I grow up, I want to be a watermelon"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
RECEIVER = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
RECEIVER_PUBLIC = (
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
)
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
MESSAGE = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27ml"
    "mlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT"
    "pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def private(text: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(decoded(text)), ec.SECP256R1())


def test_the_rfcs_example_is_encrypted_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the randomness is given."""

    def ephemeral(*_: object) -> ec.EllipticCurvePrivateKey:
        return private(SENDER)

    def salt(length: int) -> bytes:
        assert length == 16
        return decoded(SALT)

    monkeypatch.setattr("webpush.ec.generate_private_key", ephemeral)
    monkeypatch.setattr("webpush.os.urandom", salt)
    made = Encryption().encrypt(PLAINTEXT, p256dh=RECEIVER_PUBLIC, auth=AUTH)
    assert encoded(made) == MESSAGE


def test_the_rfcs_example_is_read_by_the_other_implementation() -> None:
    browser = Browser(private(RECEIVER), decoded(AUTH))
    assert encoded(point(browser.private)) == RECEIVER_PUBLIC
    assert browser.read(decoded(MESSAGE)) == PLAINTEXT


@pytest.mark.parametrize("length", [0, 1, 512, 3_993])
def test_what_is_encrypted_is_read_by_the_other_implementation(length: int) -> None:
    browser = Browser()
    plaintext = os.urandom(length)
    device = browser.device("https://push.example/1")
    assert device.p256dh is not None
    assert device.auth is not None
    made = Encryption().encrypt(plaintext, p256dh=device.p256dh, auth=device.auth)
    assert browser.read(made) == plaintext
    assert len(made) == 16 + 4 + 1 + 65 + length + 1 + 16 <= 4_096


def test_each_message_has_a_salt_and_an_ephemeral_key_of_its_own() -> None:
    encryption = Encryption()
    made = [encryption.encrypt(PLAINTEXT, p256dh=RECEIVER_PUBLIC, auth=AUTH) for _ in range(20)]
    assert len({message[:16] for message in made}) == 20
    assert len({message[21:86] for message in made}) == 20


@pytest.mark.parametrize(
    ("p256dh", "auth"),
    [("", AUTH), ("AAAA", AUTH), (encoded(b"\x04" + bytes(64)), AUTH), ("ä", AUTH)],
    ids=["none", "short", "not on the curve", "not base64url"],
)
def test_what_is_no_key_is_told_apart(p256dh: str, auth: str) -> None:
    with pytest.raises(UnusableKeys):
        Encryption().encrypt(PLAINTEXT, p256dh=p256dh, auth=auth)
