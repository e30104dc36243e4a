import string
from uuid import UUID, uuid4

import pytest

from app.errors import InvalidAckToken
from app.security.ack_tokens import AckTokens

OLD, NEW = b"o" * 32, b"n" * 32
DELIVERY = UUID("0197a000-0000-7000-8000-000000000001")
ALPHABET = string.ascii_letters + string.digits + "-_"


def test_a_token_names_its_delivery() -> None:
    tokens = AckTokens([NEW])
    token = tokens.issue(DELIVERY)
    assert tokens.read(token) == DELIVERY
    assert len(token) == 43
    assert set(token) <= set(ALPHABET)


def test_tokens_survive_a_rotation_of_the_keys() -> None:
    token = AckTokens([OLD]).issue(DELIVERY)
    assert AckTokens([NEW, OLD]).read(token) == DELIVERY
    with pytest.raises(InvalidAckToken):
        AckTokens([NEW]).read(token)


def test_every_altered_character_is_noticed() -> None:
    tokens = AckTokens([NEW])
    token = tokens.issue(DELIVERY)
    for place, character in enumerate(token):
        for other in ALPHABET:
            if other != character:
                with pytest.raises(InvalidAckToken):
                    tokens.read(token[:place] + other + token[place + 1 :])


def test_what_is_no_token_is_refused() -> None:
    tokens = AckTokens([NEW])
    token = tokens.issue(DELIVERY)
    for wrong in (
        "",
        "x",
        token[:-1],
        f"{token}=",
        f"{token}A",
        f" {token[1:]}",
        "ä" * 43,
        "\ud800" * 43,
        "=" * 43,
        "+" * 43,
        token * 1_000,
        str(uuid4()),
    ):
        with pytest.raises(InvalidAckToken):
            tokens.read(wrong)
