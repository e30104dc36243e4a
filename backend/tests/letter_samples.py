"""Letters that are looked at: by golden files, by the accessibility check, and by people."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from app.channels.base import Claim
from app.channels.email.compose import Composer
from app.channels.email.digest import Digest, DigestItem
from app.channels.email.letter import Letter
from app.channels.texts import NO_TEXTS, ChannelTexts
from app.config import Settings
from app.policy.kinds import Channel, DigestFrequency, NotificationType, Priority
from app.policy.routing import Request
from app.rendering.renderer import ProcessRenderer
from app.security.email_tokens import EmailTokens
from app.security.sanitize import safe_html
from app.shipped_templates import shipped_templates
from tests.template_samples import said

BASE = "https://app.example.com"
NOW = datetime(2026, 1, 8, 8, 0, tzinfo=UTC)
TOKENS = EmailTokens([b"k" * 32])
ADDRESS = "ada@example.com"

ALL_OF_MARKDOWN = """\
Words may be **strong**, *stressed*, ~~gone~~ or `code`, and lead [to the web](https://example.com/a?b=1&c=2),
[to a page](/tasks/128) or [to a mailbox](mailto:ops@example.com).<br>
This is a line of its own.

# A first heading

### One that skipped a level

1. First comes this,
2. then that:
   - with parts
   - of its own

   and a paragraph.
3. At last this.

> Somebody said something,
>
> > and somebody before them.

| step | result | seconds |
| --- | --- | --- |
| build | passed | 42 |
| test with a longer name | `failed` | 1,204 |

---

```python
def answer(question: str) -> int:
    return 42  # a comment that is rather long, so that the line does not fit on a phone
```

###### The lowest heading

Its text, with <b>bold</b> and <i>italic</i>, an address (<https://example.com/docs>) and the end.
"""


def settings_of(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "_env_file": None,
        "app_env": "production",
        "public_url": BASE,
        "privacy_policy_url": "https://example.com/privacy",
        "resend_from_name": "OmoiOS",
    }
    return Settings(**values | changes)


def composer(**changes: Any) -> Composer:
    return Composer(settings_of(**changes), TOKENS)


def a_claim(
    title: str = "New task assigned",
    body: str = "Please review **PR #123** before Friday.",
    *,
    data: dict[str, Any] | None = None,
    type: NotificationType = NotificationType.TASK,
    priority: Priority = Priority.HIGH,
    locale: str | None = "en",
    language: str | None = None,
    texts: ChannelTexts = NO_TEXTS,
    number: int = 1,
) -> Claim:
    return Claim(
        id=UUID(int=0x0197_A000_0000_7000_8000_0000_0000_1000 + number),
        lease_token=UUID(int=1),
        notification_id=UUID(int=0x0197_A000_0000_7000_8000_0000_0000_2000 + number),
        user_id=UUID("0197a000-0000-7000-8000-000000000001"),
        channel=Channel.EMAIL,
        attempts=1,
        expired_leases=0,
        type=type,
        priority=priority,
        title=title,
        body=body,
        body_html=safe_html(body),
        data=data or {},
        created_at=NOW,
        expires_at=None,
        cancelled_at=None,
        email=ADDRESS,
        full_name="Ada Lovelace",
        request=Request(type=type, priority=priority),
        locale=locale,
        language=language,
        texts=texts,
    )


def a_digest(
    items: Sequence[DigestItem],
    *,
    locale: str | None = "en",
    timezone: str = "Europe/Berlin",
    frequency: DigestFrequency = DigestFrequency.DAILY,
) -> Digest:
    return Digest(
        id=UUID("0197a000-0000-7000-8000-00000000d001"),
        user_id=UUID("0197a000-0000-7000-8000-000000000001"),
        email=ADDRESS,
        full_name="Ada Lovelace",
        locale=locale,
        timezone=ZoneInfo(timezone),
        frequency=frequency,
        slot=NOW,
        email_epoch=0,
        items=tuple(items),
    )


def an_item(
    number: int,
    title: str,
    body: str,
    type: NotificationType = NotificationType.TASK,
    *,
    hours_ago: float = 1,
    language: str | None = None,
) -> DigestItem:
    return DigestItem(
        notification_id=UUID(int=0x0197_A000_0000_7000_8000_0000_0000_3000 + number),
        type=type,
        priority=Priority.NORMAL,
        title=title,
        body_html=safe_html(body),
        created_at=NOW - timedelta(hours=hours_ago),
        language=language,
    )


ITEMS = {
    "en": (
        ("Review requested: PR #123", "Grace asks you to look at **the new parser** by Friday.",
         NotificationType.TASK),
        ("Build 4711 failed", "2 of 318 tests failed on `main`.", NotificationType.WORKFLOW),
        ("Task done: write the letter", "Everything in it is finished.", NotificationType.TASK),
        ("Invoice 2026-001 is ready", "120.00 EUR, due on 22 January.", NotificationType.BILLING),
        ("تمت مشاركة ملف معك", "شارك محمد الملف **الخطة السنوية**.", NotificationType.USER),
    ),
    "de": (
        ("Prüfung erbeten: PR #123", "Grace bittet um einen Blick auf **den neuen Parser** bis "
         "Freitag.", NotificationType.TASK),
        ("Build 4711 fehlgeschlagen", "2 von 318 Tests auf `main`.", NotificationType.WORKFLOW),
        ("Aufgabe erledigt: Brief schreiben", "Alles ist fertig.", NotificationType.TASK),
        ("Rechnung 2026-001 liegt bereit", "120,00 EUR bis 22. Januar.", NotificationType.BILLING),
        ("Ada sent you a message", "See you **tomorrow**!", NotificationType.USER),
    ),
    "ar": (
        ("طُلبت مراجعتك: PR #123", "تطلب غريس مراجعة **المحلل الجديد** قبل يوم الجمعة.",
         NotificationType.TASK),
        ("فشل البناء 4711", "فشل اختباران من 318 على `main`.", NotificationType.WORKFLOW),
        ("اكتملت المهمة: كتابة الرسالة", "كل ما فيها جاهز.", NotificationType.TASK),
        ("الفاتورة 2026-001 جاهزة", "120.00 يورو، تستحق في 22 يناير.", NotificationType.BILLING),
        ("Ada sent you a message", "See you **tomorrow**!", NotificationType.USER),
    ),
}  # fmt: skip


def items_in(language: str) -> list[DigestItem]:
    return [
        an_item(number, title, body, type_, hours_ago=number * 5 - 4)
        for number, (title, body, type_) in enumerate(ITEMS[language], start=1)
    ]


def letters() -> Iterator[tuple[str, Letter]]:
    """Every letter that has golden files, by their name."""
    write = composer()
    yield (
        "instant.en",
        write.instant(
            a_claim(
                "Review requested: “Parser, second part”",
                "Grace Hopper asks you to review **PR #123** before Friday.\n\n"
                "- 14 files changed\n- all checks passed\n\n"
                "> Please look at the error handling first.\n\n"
                "The discussion is [in the task](/tasks/128#comments).",
                data={
                    "action_url": "/tasks/128",
                    "actions": [
                        {"label": "Review it", "url": "/tasks/128", "primary": True},
                        {"label": "All tasks", "url": "/tasks"},
                        {"label": "Accept", "action": "accept"},
                    ],
                },
            ),
            ADDRESS,
        ),
    )
    yield (
        "instant.de",
        write.instant(
            a_claim(
                "Neue Anmeldung von einem unbekannten Gerät",
                "",
                type=NotificationType.SECURITY,
                priority=Priority.CRITICAL,
                locale="de-AT",
                language="de",
                texts=ChannelTexts(
                    email_subject="Warnung: neue Anmeldung",
                    email_html="<p>Am 8. Januar um 9:00 Uhr hat sich jemand angemeldet.</p><table>"
                    "<tbody><tr><th>Gerät</th><td>Firefox auf Linux</td></tr><tr><th>Ort</th>"
                    "<td>Graz</td></tr></tbody></table><p>Waren Sie das nicht, "
                    '<a href="/sicherheit">sperren Sie den Zugang</a>.</p>',
                    email_text="Am 8. Januar um 9:00 Uhr hat sich jemand angemeldet.\n\n"
                    "Gerät: Firefox auf Linux\nOrt: Graz\n\nWaren Sie das nicht, sperren Sie den "
                    "Zugang: https://app.example.com/sicherheit",
                ),
            ),
            ADDRESS,
        ),
    )
    yield (
        "instant.ar",
        write.instant(
            a_claim(
                "طُلبت مراجعتك",
                "تطلب غريس هوبر مراجعة **PR #123** قبل يوم الجمعة.\n\n"
                "- تغيّر 14 ملفًا\n- نجحت كل الفحوص مع `make test`\n\n"
                "> ابدأ بمعالجة الأخطاء من فضلك.\n\n"
                "| الملف | الحالة |\n| --- | --- |\n| المحلل | جاهز |\n\n"
                "والنقاش [في المهمة](/tasks/128).",
                locale="ar",
                data={"action_url": "/tasks/128"},
            ),
            ADDRESS,
        ),
    )
    yield (
        "markdown.en",
        write.instant(a_claim("Every element of Markdown", ALL_OF_MARKDOWN), ADDRESS),
    )
    for language, timezone in (
        ("en", "America/New_York"), ("de", "Europe/Berlin"), ("ar", "Africa/Cairo"),
    ):  # fmt: skip
        frequency = DigestFrequency.WEEKLY if language == "de" else DigestFrequency.DAILY
        yield (
            f"digest.{language}",
            write.digest(
                a_digest(
                    items_in(language), locale=language, timezone=timezone, frequency=frequency
                )
            ),
        )


async def template_letters() -> AsyncGenerator[tuple[str, Letter]]:
    """A letter of every shipped template in every language, by `NAME.LANGUAGE`."""
    write = composer()
    async with ProcessRenderer() as renderer:
        for shipped in shipped_templates():
            texts = await said(renderer, shipped, shipped.example)
            claim = a_claim(
                texts.pop("title"),
                texts.pop("body"),
                data=shipped.example,
                type=NotificationType(shipped.type),
                priority=Priority(shipped.priority),
                locale=shipped.language,
                language=shipped.language,
                texts=ChannelTexts(**texts),
            )
            yield f"{shipped.name}.{shipped.language}", write.instant(claim, ADDRESS)
