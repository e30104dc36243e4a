"""Holds ARCHITECTURE.md to its word: each path exists, each requirement is accounted for."""

import re
import sys
from pathlib import Path

from app.policy.kinds import Reason

ROOT = Path(__file__).parents[1]
REQUIREMENTS = [f"REQ-{n:03}" for n in range(1, 24)] + [f"SEC-{n:03}" for n in range(1, 6)]


def problems() -> list[str]:
    """What the documents claim and the tree does not show."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| ((?:REQ|SEC)-\d{3}|[\d.]+) [^|]*\|([^|]*)\|([^|]*)\|$", text, re.M)
    found: list[str] = []
    for requirement, code, tests in rows:
        for kind, cell in (("code", code), ("test", tests)):
            paths = re.findall(r"`([^`]+)`", cell)
            if not paths:
                found.append(f"{requirement}: no {kind} is named")
            found += [
                f"{requirement}: {path} is not there"
                for path in paths
                if not (ROOT / path).exists()
            ]
    built = {requirement for requirement, _, _ in rows}
    missing = set(re.findall(r"(?:REQ|SEC)-\d{3}", text.partition("Not built yet:")[2]))
    found += [
        f"{name}: neither built nor listed as not built"
        for name in REQUIREMENTS
        if name not in built | missing
    ]
    found += [f"{name}: both built and listed as not built" for name in sorted(built & missing)]
    reasons = (ROOT / "docs/reasons.md").read_text()
    found += [
        f"{reason}: not in docs/reasons.md" for reason in Reason if f"`{reason}`" not in reasons
    ]
    return found


if __name__ == "__main__":
    lines = problems()
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(bool(lines))
