"""The gate in front of each provider that speaks HTTP: makes requests fail as the rules say."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.sandbox.faults import (
    DelayFault,
    DropAfterFault,
    DropFault,
    DuplicateFault,
    Faults,
    HangFault,
    LoseFault,
    Provider,
    RedirectFault,
    StatusFault,
)

ABORT_CONNECTION = "abort_connection"
LOST = "lost"

Addressees = Callable[[Scope, bytes], Collection[str]]


class FaultGate:
    """ASGI: lets every request meet the rule that is due for it.

    Args:
        app: the provider's routes.
        provider: whose rules apply.
        faults: the rules in force.
        refusal: renders a `status` rule in the provider's shape.
        addressees: names whom a request with this body is for, so that rules may pick them out.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        provider: Provider,
        faults: Faults,
        refusal: Callable[[StatusFault], Response],
        addressees: Addressees | None = None,
    ) -> None:
        self._app = app
        self._provider: Provider = provider
        self._faults = faults
        self._refusal = refusal
        self._addressees = addressees

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request, or fail it as its rule says."""
        # Taken in first: the body may say whom it is for, and a client that leaves while its
        # request is delayed has still sent it.
        request = await _whole_request(receive)
        receive = _then(request, receive)
        match self._faults.next(self._provider, self._addressed(scope, request)):
            case None:
                await self._app(scope, receive, send)
            case StatusFault() as fault:
                await self._refusal(fault)(scope, receive, send)
            case DelayFault(seconds=seconds):
                if await self._faults.hold(seconds):
                    await self._app(scope, receive, send)
                else:
                    await drop_connection(scope, receive)
            case HangFault(seconds=seconds):
                await self._hang(seconds, receive)
                await drop_connection(scope, receive)
            case DropFault():
                await drop_connection(scope, receive)
            case DropAfterFault():
                await self._app(scope, receive, _discard)
                await drop_connection(scope, receive)
            case RedirectFault(location=location, status=status):
                answer = Response(status_code=status, headers={"location": location})
                await answer(scope, receive, send)
            case LoseFault():
                scope.setdefault("state", {})[LOST] = True
                await self._app(scope, receive, send)
            case DuplicateFault():  # of webhooks alone
                await self._app(scope, receive, send)

    def _addressed(self, scope: Scope, request: Sequence[Message]) -> Collection[str]:
        if self._addressees is None:
            return ()
        return self._addressees(scope, b"".join(part.get("body", b"") for part in request))

    async def _hang(self, seconds: float, receive: Receive) -> None:
        gone = asyncio.ensure_future(_client_gone(receive))
        held = asyncio.ensure_future(self._faults.hold(seconds))
        await asyncio.wait((gone, held), return_when=asyncio.FIRST_COMPLETED)
        for waiting in (gone, held):
            waiting.cancel()
        await asyncio.gather(gone, held, return_exceptions=True)


async def drop_connection(scope: Scope, receive: Receive) -> None:
    """Reset the request's connection, so that its client gets an error and no response.

    Raises:
        RuntimeError: the application is not served by `app.sandbox.server`.
    """
    abort = cast("dict[str, Any]", scope.get("state", {})).get(ABORT_CONNECTION)
    if abort is None:
        raise RuntimeError("connections can only be dropped under app.sandbox.server")
    cast("Callable[[], None]", abort)()
    await _client_gone(receive)


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole_request(receive: Receive) -> list[Message]:
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _then(messages: list[Message], receive: Receive) -> Receive:
    waiting = deque(messages)

    async def receive_again() -> Message:
        return waiting.popleft() if waiting else await receive()

    return receive_again


async def _discard(message: Message) -> None:
    pass
