import pytest

from app.security.addresses import is_safe_address, is_safe_link

RELATIVE_OR_HTTPS = [
    "/",
    "/tasks/0197a000-0000-7000-8000-00000000abcd",
    "/tasks?sort=new#top",
    "?page=2",
    "#part",
    "/a//b",
    "/search?q=javascript:alert(1)",
    "https://example.com",
    "https://example.com/reset?token=eyJhbGciOiJIUzI1NiJ9.e30.x&next=/a@b",
    "HTTPS://Example.COM:8443/a b",
    "https://bücher.example/ä?ö#ü",
    "https://[2001:db8::1]:8443/",
    "https://127.0.0.1/",
]
ONLY_IN_BODIES = ["http://example.com/", "http://localhost:3000", "mailto:ada@example.com"]
NOWHERE = [
    "",
    " ",
    "tasks/1",
    "example.com",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
    "java\nscript:alert(1)",
    "\x01javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "blob:https://example.com/x",
    "file:///etc/passwd",
    "ftp://example.com/",
    "intent://example.com/#Intent;end",
    "//evil.example",
    "//evil.example/@example.com",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/a\nb",
    "/a\x00b",
    "/a\x7fb",
    "/a\x85b",
    "/a\u2028b",
    "/a\u202eb",
    "/a\u200bb",
    " /a",
    "/a ",
    "/a\u00a0",
    "https:",
    "https:/example.com",
    "https:example.com",
    "https://",
    "https:///path",
    "https://?q",
    "https://user@example.com/",
    "https://user:secret@example.com/",
    "https://example.com@evil.example/",
    "https://example.com:@evil.example/",
    "https://example.com:port/",
    "https://example.com:1234567/",
    "https://exa mple.com/",
    "https://example.com\\@evil.example/",
    "https://ex%61mple.com/",
    "https://<b>/",
    "https://[::1",
]


@pytest.mark.parametrize("address", RELATIVE_OR_HTTPS)
def test_relative_and_https_addresses_are_safe(address: str) -> None:
    assert is_safe_address(address)
    assert is_safe_link(address)


@pytest.mark.parametrize("address", ONLY_IN_BODIES)
def test_a_body_may_link_to_http_and_mail_too(address: str) -> None:
    assert not is_safe_address(address)
    assert is_safe_link(address)


@pytest.mark.parametrize("address", NOWHERE)
def test_all_others_are_not(address: str) -> None:
    assert not is_safe_address(address)
    assert not is_safe_link(address)
