"""Access tokens for FCM: a signed assertion is changed for one (RFC 7523, RFC 6749 section 4.4).

A token lasts an hour. It is asked for anew before it ends, while the old one still serves, and by
one request at a time, however many messages wait for it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import httpx
import jwt
import structlog

from app.channels.retry_after import retry_after
from app.config import Settings
from app.policy.kinds import Reason
from app.service_account import ServiceAccount

log = structlog.get_logger()

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_LIFETIME: Final = timedelta(hours=1)
RENEWED_AFTER: Final = 0.9  # of a token's lifetime
TRUSTED_FOR: Final = 0.98  # of it: requests take their time
LONGEST_LIFETIME: Final = 3600.0  # seconds, whatever is answered
PAUSE: Final = 5.0  # seconds between requests for a token while they fail
SANDBOX_PAUSE: Final = 1.0
REFUSALS: Final = frozenset({400, 401, 403})  # which are the account's own fault


@dataclass(frozen=True, slots=True)
class Access:
    """A token, and the project it is for."""

    token: str = field(repr=False)
    project_id: str
    renew_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why there is no token, and until when none is asked for."""

    reason: Reason
    detail: str
    until: datetime


class NoAccess(Exception):
    """There is no token now.

    Args:
        reason: `provider_rejected` when the account is refused, else why it could not be asked.
        detail: a sentence for operators.
        after: seconds until it makes sense to try again.
    """

    def __init__(self, reason: Reason, detail: str, after: float) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.after = after


class FcmCredentials:
    """The service account, as tokens.

    In development without an account it is the sandbox's own, which is asked for when first
    needed: the sandbox may start after this.

    Args:
        settings: the account, the project and the time one request may take.
        client: shared HTTP client; the caller closes it.
        clock: the present instant.
    """

    def __init__(
        self, settings: Settings, client: httpx.AsyncClient, clock: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._clock = clock
        # Who waits for it to send has time left to be told.
        self._seconds = settings.provider_timeout_seconds / 2
        self._sandbox = settings.sandbox_url if settings.uses_sandbox_fcm else None
        # The sandbox has one project, whatever that of the real account is.
        self._project_id = None if self._sandbox else settings.fcm_project_id
        self._pause = SANDBOX_PAUSE if self._sandbox else PAUSE
        given = settings.fcm_service_account
        self._account = ServiceAccount.parse(given.get_secret_value()) if given else None
        self._access: Access | None = None
        self._refusal: _Refusal | None = None
        self._asking: asyncio.Task[Access | _Refusal] | None = None

    async def access(self) -> Access:
        """A token that will serve for a while.

        Raises:
            NoAccess: none can be had now.
        """
        now, held, refusal = self._clock(), self._access, self._refusal
        if held is not None and now < held.renew_at:
            return held
        if refusal is None or now >= refusal.until:
            self._asking = self._asking or asyncio.create_task(self._renew())
        if held is not None and now < held.ends_at:
            return held
        if self._asking is not None:
            # Whoever gives up waiting leaves the others their answer.
            answer = await asyncio.shield(self._asking)
            if isinstance(answer, Access):
                return answer
            refusal = answer
        assert refusal is not None  # noqa: S101 -- nothing was asked for, so something failed
        after = (refusal.until - self._clock()).total_seconds()
        raise NoAccess(refusal.reason, refusal.detail, max(after, 0.0))

    def refuse(self, access: Access) -> None:
        """Forget a token that FCM does not take."""
        if self._access is access:
            self._access = None

    async def _renew(self) -> Access | _Refusal:
        try:
            # The client's own timeouts begin anew with every byte.
            async with asyncio.timeout(self._seconds):
                if self._account is None:
                    self._account = await self._sandbox_account()
                answer = await self._exchange(self._account)
        except (httpx.HTTPError, TimeoutError) as error:
            answer = self._failed(Reason.PROVIDER_UNAVAILABLE, type(error).__name__)
        except (ValueError, KeyError, TypeError) as error:
            answer = self._failed(
                Reason.PROVIDER_UNAVAILABLE, f"an unreadable answer ({type(error).__name__})"
            )
        except Exception as error:
            log.exception("fcm_access_fault")
            answer = self._failed(Reason.INTERNAL_ERROR, type(error).__name__)
        finally:
            self._asking = None
        if isinstance(answer, Access):
            self._access, self._refusal = answer, None
            return answer
        if self._refusal is None or self._refusal.detail != answer.detail:
            # Once, not with every try.
            log.warning("fcm_access_failed", reason=answer.reason.value, detail=answer.detail)
        self._refusal = answer
        return answer

    async def _sandbox_account(self) -> ServiceAccount:
        answer = await self._client.get(f"{self._sandbox}/fcm/service-account.json")
        answer.raise_for_status()
        return ServiceAccount.parse(answer.text)

    async def _exchange(self, account: ServiceAccount) -> Access | _Refusal:
        now = self._clock()
        # Signing takes the time of many a message.
        assertion = await asyncio.to_thread(_assertion, account, now)
        form = {"grant_type": GRANT, "assertion": assertion}
        answer = await self._client.post(account.token_uri, data=form)
        if not answer.is_success:
            return self._refused(answer, now)
        told = answer.json()
        lifetime = timedelta(seconds=min(float(told["expires_in"]), LONGEST_LIFETIME))
        return Access(
            token=str(told["access_token"]),
            project_id=self._project_id or account.project_id,
            renew_at=now + lifetime * RENEWED_AFTER,
            ends_at=now + lifetime * TRUSTED_FOR,
        )

    def _refused(self, answer: httpx.Response, now: datetime) -> _Refusal:
        code = ""
        with suppress(ValueError, KeyError, TypeError):
            code = str(answer.json()["error"])
        # A code of RFC 6749 is repeated; what else stands there might be anything.
        is_code = code.isascii() and code.replace("_", "").isalpha() and len(code) <= 40  # noqa: PLR2004
        detail = f"{answer.status_code} {code if is_code else ''}".strip()
        is_refused = answer.status_code in REFUSALS
        reason = Reason.PROVIDER_REJECTED if is_refused else Reason.PROVIDER_UNAVAILABLE
        return self._failed(reason, detail, retry_after(answer.headers.get("retry-after"), now))

    def _failed(self, reason: Reason, detail: str, after: float | None = None) -> _Refusal:
        seconds = min(max(after or 0.0, self._pause), LONGEST_LIFETIME)
        until = self._clock() + timedelta(seconds=seconds)
        return _Refusal(reason, f"No access token: {detail}.", until)


def _assertion(account: ServiceAccount, now: datetime) -> str:
    claims = {
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": int(now.timestamp()),
        "exp": int((now + ASSERTION_LIFETIME).timestamp()),
    }
    headers = {"kid": account.private_key_id} if account.private_key_id else None
    key = account.private_key.get_secret_value()
    return jwt.encode(claims, key, algorithm="RS256", headers=headers)
