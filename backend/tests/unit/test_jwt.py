"""What is remembered of verified tokens, and for how long (SEC-004)."""

import asyncio
from datetime import UTC, datetime, timedelta

import jwt
import pytest
import time_machine

from app.config import ConfigurationError, Settings
from app.security.jwt import (
    REMEMBERED_LENGTH,
    REMEMBERED_TOKENS,
    Claims,
    ExpiredToken,
    InvalidToken,
    TokenVerifier,
    issue_token,
)

SECRET = "s" * 32
NOW = datetime(2026, 1, 8, 13, tzinfo=UTC)


@pytest.fixture
def settings() -> Settings:
    return Settings.model_validate({"jwt_secret": SECRET, "jwt_jwks_url": None})


def token(lifetime: timedelta = timedelta(hours=1), subject: str = "tests") -> str:
    claims = {"sub": subject, "role": "service", "exp": NOW + lifetime}
    return jwt.encode(claims, SECRET, algorithm="HS256")


def verify(verifier: TokenVerifier, text: str, at: timedelta) -> Claims:
    with time_machine.travel(NOW + at, tick=False):
        return asyncio.run(verifier.verify(text))


def test_a_token_is_verified_once_a_minute(settings: Settings) -> None:
    verifier, text = TokenVerifier(settings), token()
    first = verify(verifier, text, timedelta(0))
    assert verify(verifier, text, timedelta(seconds=59)) is first
    again = verify(verifier, text, timedelta(seconds=60))
    assert again is not first
    assert again == first


def test_a_token_is_not_remembered_past_its_end(settings: Settings) -> None:
    verifier, text = TokenVerifier(settings), token(timedelta(seconds=30))
    first = verify(verifier, text, timedelta(0))
    assert verify(verifier, text, timedelta(seconds=29)) is first
    # From here on only the leeway counts, each time anew.
    assert verify(verifier, text, timedelta(seconds=31)) is not first
    for seconds in (36, 59, 61):
        with pytest.raises(ExpiredToken):
            verify(verifier, text, timedelta(seconds=seconds))


def test_what_was_refused_is_not_remembered(settings: Settings) -> None:
    verifier, text = TokenVerifier(settings), token()
    for _ in range(2):
        with pytest.raises(InvalidToken):
            verify(verifier, text[:-6] + "AAAAAA", timedelta(0))
    verify(verifier, text, timedelta(0))
    with pytest.raises(InvalidToken):
        verify(verifier, text + "A", timedelta(0))


def test_the_oldest_are_forgotten_first(settings: Settings) -> None:
    verifier = TokenVerifier(settings)
    texts = [token(subject=str(number)) for number in range(REMEMBERED_TOKENS + 1)]
    with time_machine.travel(NOW, tick=False):
        claims = asyncio.run(_all(verifier, texts))
    assert verify(verifier, texts[1], timedelta(0)) is claims[1]
    assert verify(verifier, texts[-1], timedelta(0)) is claims[-1]
    assert verify(verifier, texts[0], timedelta(0)) is not claims[0]


async def _all(verifier: TokenVerifier, texts: list[str]) -> list[Claims]:
    return [await verifier.verify(text) for text in texts]


def test_endless_tokens_are_not_kept(settings: Settings) -> None:
    verifier, text = TokenVerifier(settings), token(subject="a" * REMEMBERED_LENGTH)
    assert verify(verifier, text, timedelta(0)) is not verify(verifier, text, timedelta(0))


def test_there_must_be_something_to_verify_with(settings: Settings) -> None:
    without = settings.model_copy(update={"jwt_secret": None})
    with pytest.raises(ConfigurationError, match="JWT_SECRET or JWT_JWKS_URL"):
        TokenVerifier(without)
    with pytest.raises(ConfigurationError, match="JWT_SECRET: required to issue tokens"):
        issue_token(without, subject="tests", role="service", expires_at=NOW)
