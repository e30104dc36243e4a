"""Finding a language (REQ-004)."""

import pytest

from app.locales import languages_of


@pytest.mark.parametrize(
    ("tag", "chain"),
    [
        ("pt-BR", ["pt-br", "pt", "en"]),
        ("zh_Hant-TW", ["zh-hant-tw", "zh-hant", "zh", "en"]),
        ("en-GB", ["en-gb", "en"]),
        ("-de-", ["-de-", "-de", "en"]),
        ("", ["en"]),
        (None, ["en"]),
    ],
)
def test_the_chain_ends_in_english(tag: str | None, chain: list[str]) -> None:
    assert languages_of(tag) == chain


@pytest.mark.parametrize("tag", ["a-" * 30_000, "-" * 60_000, "a" * 60_000])
def test_a_browser_may_ask_for_anything(tag: str) -> None:
    """Nobody has to sign in to send such a header, so it must not make much of anything."""
    assert sum(map(len, languages_of(tag))) < 1_000
