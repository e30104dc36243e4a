"""What one trial showed, as a line of the table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

HEADINGS = ("scenario", "202s", "delivered", "dead", "duplicates", "verdict")
COLUMNS = "{:<34} {:>5} {:>9} {:>5} {:>10}  {}"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one trial's calls.

    Args:
        accepted: calls answered 202.
        delivered: of those, in the notification center and mailed.
        dead: deliveries that ended without being sent, by reason.
        duplicates: mails beyond one for an idempotency key, and notifications shown twice.
        repeats: requests with a key the provider had seen, which it answered without a second mail.
        refused: calls told to come back.
        unanswered: calls whose connection broke.
        problems: promises that were broken; none is `ok`.
        skipped: why it could not be tried here.
        notes: what else was measured, each a line.
    """

    name: str
    fault: str
    seconds: float = 0.0
    accepted: int = 0
    delivered: int = 0
    dead: Counter[str] = field(default_factory=Counter[str])
    duplicates: int = 0
    repeats: int = 0
    refused: int = 0
    unanswered: int = 0
    problems: Sequence[str] = ()
    skipped: str | None = None
    notes: Sequence[str] = ()

    @property
    def is_ok(self) -> bool:
        """Whether every promise held, or could not be tried."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """`ok`, `FAILED`, or why it was skipped."""
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        return "ok" if self.is_ok else "FAILED"


def heading() -> str:
    """The table's first line."""
    return COLUMNS.format(*HEADINGS)


def lines(report: Report) -> str:
    """The trial's line; what else there is to say follows, indented."""
    told = [
        COLUMNS.format(
            report.name,
            report.accepted,
            report.delivered,
            report.dead.total(),
            report.duplicates,
            report.verdict,
        ),
        f"  {report.fault}",
    ]
    more = [f"{count} × {reason}" for reason, count in sorted(report.dead.items())]
    counted = (
        (report.refused, "refused"),
        (report.unanswered, "unanswered"),
        (report.repeats, "repeated requests"),
    )
    more += [f"{count} {what}" for count, what in counted if count]
    if report.skipped is None:
        more.append(f"{report.seconds:.0f} s")
    if more:
        told.append(f"  {', '.join(more)}")
    told += [f"  {note}" for note in report.notes]
    told += [f"  ! {problem}" for problem in report.problems]
    return "\n".join(told)
