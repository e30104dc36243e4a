"""Links in emails open what they were made for, and nothing else (SEC-005)."""

from uuid import UUID, uuid4

import pytest

from app.policy.kinds import NotificationType
from app.security.ack_tokens import AckTokens
from app.security.email_tokens import EmailTokens, Unsubscription
from app.security.sealed import NotSealed, Sealer

OLD, NEW = b"o" * 32, b"n" * 32
LETTER = UUID(int=7)


@pytest.mark.parametrize("about", [None, *NotificationType])
def test_an_unsubscribe_link_says_whom_it_is_for_and_what_of(
    about: NotificationType | None,
) -> None:
    tokens = EmailTokens([OLD])
    wanted = Unsubscription(LETTER, 3, about)
    assert tokens.read_unsubscribe(tokens.unsubscribe(wanted)) == wanted


def test_letters_are_told_apart_and_so_are_their_links() -> None:
    tokens = EmailTokens([OLD])
    assert tokens.read_opened(tokens.opened(LETTER)) == LETTER
    assert tokens.read_clicked(tokens.clicked(LETTER, 300)) == (LETTER, 300)


def test_a_token_of_one_purpose_is_none_of_another() -> None:
    tokens = EmailTokens([OLD])
    acknowledging = AckTokens([OLD]).issue(LETTER)
    opened, clicked = tokens.opened(LETTER), tokens.clicked(LETTER, 0)
    unsubscribe = tokens.unsubscribe(Unsubscription(LETTER, 0, None))
    for read, wrong in (
        (tokens.read_opened, (acknowledging, clicked, unsubscribe)),
        (tokens.read_clicked, (acknowledging, opened, unsubscribe)),
        (tokens.read_unsubscribe, (acknowledging, opened, clicked)),
    ):
        for token in wrong:
            with pytest.raises(NotSealed):
                read(token)


def test_rotated_keys_open_what_earlier_ones_sealed() -> None:
    token = EmailTokens([OLD]).opened(LETTER)
    assert EmailTokens([NEW, OLD]).read_opened(token) == LETTER
    with pytest.raises(NotSealed):
        EmailTokens([NEW]).read_opened(token)


@pytest.mark.parametrize("garbage", ["", "=", "a", "é", "a" * 300, " ", "\n", "A" * 64, "a.b"])
def test_garbage_opens_nothing(garbage: str) -> None:
    with pytest.raises(NotSealed):
        Sealer([OLD], b"x").open(garbage)


def test_one_spelling_opens() -> None:
    sealer = Sealer([OLD], b"x")
    token = sealer.seal(uuid4().bytes + b"1")
    for other in (token + "=", token + "A", token[:-1], " " + token, token + "\n"):
        with pytest.raises(NotSealed):
            sealer.open(other)
