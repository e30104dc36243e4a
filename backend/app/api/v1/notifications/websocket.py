"""The socket's path (requirements 5.4)."""

from uuid import uuid4

from fastapi import FastAPI, WebSocket
from fastapi.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from app.api.routing import PREFIX, v1_routes
from app.errors import NotFound
from app.realtime.gateway import Gateway

SOCKET_PATH = f"{PREFIX}/notifications/ws"

router = v1_routes(prefix="/notifications")


@router.websocket("/ws")
async def notifications_socket(websocket: WebSocket) -> None:
    """Live changes of the caller's inbox; `docs/websocket-protocol.md` has the messages.

    The application's state holds the gateway as `gateway`. A gateway that is switched off answers
    the handshake with 404.
    """
    await _serve(websocket, websocket.app.state.gateway)


class SocketShortcut:
    """An application whose sockets bypass the framework.

    Every layer that a socket passes keeps a part of its state as long as the socket is open:
    together 15 KB, as much as all the rest, for each of thousands of sockets that need none of it.

    Args:
        app: its state holds the gateway as `gateway`; gets everything else.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the socket's path, or pass on."""
        if scope["type"] == "websocket" and scope["path"] == SOCKET_PATH:
            await _serve(WebSocket(scope, receive, send), self._app.state.gateway)
        else:
            await self._app(scope, receive, send)


async def _serve(websocket: WebSocket, gateway: Gateway) -> None:
    if gateway.is_enabled:
        await gateway.serve(websocket)
        return
    error: dict[str, object] = {
        "code": NotFound.code,
        "message": NotFound.default_message,
        "details": [],
    }
    body = {"error": error, "correlation_id": uuid4().hex}
    await websocket.send_denial_response(JSONResponse(body, status_code=NotFound.status))
