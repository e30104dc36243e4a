"""Addresses that nothing is sent to (REQ-014): they bounced, or their owners complained."""

from typing import Final

ADDRESS_DIGEST: Final = "sha256(convert_to(lower({address}), 'UTF8'))"
"""SQL of what an address is known by, once nothing but this may be known of it."""

IS_SUPPRESSED: Final = f"""EXISTS (
    SELECT FROM email_suppressions s
    WHERE s.address_digest = {ADDRESS_DIGEST.format(address="r.email")}
      AND s.suppressed_at IS NOT NULL
)"""
"""SQL of whether the address of a recipient `r` is one of them."""
