"""Who read an email, or followed its link: a person, or a machine before them (REQ-014). Pure.

Providers fetch pictures ahead, scanners follow links, both often within the second. Nobody can
tell for certain; what is known to be a machine is flagged.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

TOO_SOON: Final = timedelta(seconds=2)
"""Nobody opens an email within this after it was sent."""

BARE: Final = re.compile(r"mozilla/[45]\.0")  # Apple's Mail Privacy Protection sends no more
MACHINES: Final = re.compile(
    # those who fetch pictures for their users
    r"googleimageproxy|yahoomailproxy|imageproxy|image[ -]?cache"
    # those who look into links
    r"|barracuda|mimecast|proofpoint|symantec|messagelabs|trend ?micro|fireeye|sophos|forcepoint"
    r"|bitdefender|kaspersky|cloudmark|zscaler|safelinks|urlscan|virustotal|scanner|google-safety"
    # programs
    r"|bot\b|bots\b|crawl|spider|slurp|preview|facebookexternalhit|whatsapp|telegram|headless"
    r"|phantomjs|curl|wget|python|httpx|aiohttp|go-http-client|java/|okhttp|libwww|axios|node-fetch"
    r"|guzzle|\bphp\b|ruby|powershell|apache-httpclient"
)
PREFETCHING: Final = ("sec-purpose", "purpose", "x-purpose", "x-moz")


def is_machine(
    user_agent: str | None, headers: Mapping[str, str], since_sent: timedelta | None
) -> bool:
    """Whether it is known that no person opened the email, or followed its link.

    Args:
        user_agent: empty where the client did not say; None where nobody knows what it said.
        headers: of the request, by lower-case name.
        since_sent: how long ago the email was sent; None while that is not recorded yet.
    """
    if since_sent is None or since_sent < TOO_SOON:
        return True
    if any(re.search("prefetch|preview", headers.get(name, "")) for name in PREFETCHING):
        return True
    if user_agent is None:
        return False
    said = user_agent.strip().lower()
    return not said or bool(BARE.fullmatch(said) or MACHINES.search(said))
