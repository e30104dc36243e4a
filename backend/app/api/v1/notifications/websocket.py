"""The socket's path (requirements 5.4)."""

from uuid import uuid4

from fastapi import APIRouter, WebSocket
from fastapi.responses import JSONResponse

from app.errors import NotFound
from app.realtime.gateway import Gateway

router = APIRouter(prefix="/notifications")


@router.websocket("/ws")
async def notifications_socket(websocket: WebSocket) -> None:
    """Live changes of the caller's inbox; `docs/websocket-protocol.md` has the messages.

    The application's state holds the gateway as `gateway`. A gateway that is switched off answers
    the handshake with 404.
    """
    gateway: Gateway = websocket.app.state.gateway
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
