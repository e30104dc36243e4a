"""Conditions in the words of the indexes, which serve only what is asked for in them."""

from typing import Final

PRESENT: Final = "deleted_at IS NULL AND expired_at IS NULL"
EXPIRING: Final = f"position IS NOT NULL AND expires_at IS NOT NULL AND {PRESENT}"
