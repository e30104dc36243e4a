"""The socket's description as an AsyncAPI 3.0 document, made of the types of its messages."""

import inspect
import re
from typing import Any, get_args

import yaml
from pydantic import TypeAdapter

from app.api.v1.notifications.websocket import SOCKET_PATH
from app.main import VERSION
from app.realtime.close_codes import CloseCode
from app.realtime.messages import ClientMessage, ServerMessage

ID = "0197a000-0000-7000-8000-00000000000a"
USER = "0197a000-0000-7000-8000-000000000001"
AT = "2026-01-08T12:05:00Z"
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "authenticate": [
        {"type": "authenticate", "token": "eyJhbGciOi…"},
        {"type": "authenticate", "token": "eyJhbGciOi…", "since": 41},
    ],
    "ping": [{"type": "ping"}],
    "ack": [{"type": "ack", "seq": 44}],
    "mark_read": [{"type": "mark_read", "notification_id": ID}],
    "mark_unread": [{"type": "mark_unread", "notification_id": ID}],
    "mark_all_read": [
        {"type": "mark_all_read"},
        {"type": "mark_all_read", "up_to": 44, "notification_type": "task"},
    ],
    "authenticated": [
        {
            "type": "authenticated", "user_id": USER, "seq": 44, "unread_count": 3,
            "recovered": True, "heartbeat_interval": 30, "expires_at": "2026-01-08T13:00:00Z",
        }
    ],
    "notification": [
        {
            "type": "notification", "seq": 44, "unread_count": 3,
            "data": {
                "id": ID, "type": "task", "priority": "high", "title": "New Task Assigned",
                "body": "You have been **assigned** a new task",
                "body_html": "<p>You have been <strong>assigned</strong> a new task</p>",
                "data": {"action_url": "/tasks/128"}, "read_at": None,
                "created_at": "2026-01-08T12:00:00Z", "expires_at": None,
                "seq": 44, "position": 44,
            },
        }
    ],
    "read_status_updated": [
        {
            "type": "read_status_updated", "notification_id": ID, "read_at": AT, "seq": 45,
            "unread_count": 2,
        },
        {
            "type": "read_status_updated", "notification_id": None, "up_to": 44,
            "notification_type": None, "read_at": AT, "seq": 46, "unread_count": 0,
        },
    ],
    "notification_deleted": [
        {"type": "notification_deleted", "notification_id": ID, "seq": 47, "unread_count": 0}
    ],
    "unread_count": [{"type": "unread_count", "count": 3, "by_type": {"task": 3}, "seq": 44}],
    "sync_complete": [{"type": "sync_complete", "seq": 44}],
    "pong": [{"type": "pong", "timestamp": AT, "seq": 44}],
    "error": [{"type": "error", "code": "AUTH_FAILED", "message": "Invalid or expired token"}],
}  # fmt: skip


def asyncapi() -> str:
    """The document, as YAML."""
    schemas: dict[str, Any] = {}
    sent, received = _messages(ClientMessage, schemas), _messages(ServerMessage, schemas)
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "notify",
            "version": VERSION,
            "description": "Live changes of a user's inbox. `docs/websocket-protocol.md` says how "
            "the messages follow each other.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "inbox": {
                "address": SOCKET_PATH,
                "description": "JSON objects in text frames.",
                "messages": {
                    name: {"$ref": f"#/components/messages/{name}"} for name in (*sent, *received)
                },
                "bindings": {
                    "ws": {
                        "query": {
                            "type": "object",
                            "properties": {
                                "token": {
                                    "type": "string",
                                    "description": "Access token, instead of a first message.",
                                },
                                "since": {"type": "integer", "minimum": 0},
                            },
                        }
                    }
                },
                "x-close-codes": {code.value: code.meaning for code in CloseCode},
            }
        },
        "operations": {
            "ask": {
                "action": "receive",
                "channel": {"$ref": "#/channels/inbox"},
                "summary": "What clients send.",
                "messages": [{"$ref": f"#/channels/inbox/messages/{name}"} for name in sent],
            },
            "tell": {
                "action": "send",
                "channel": {"$ref": "#/channels/inbox"},
                "summary": "What the server sends.",
                "messages": [{"$ref": f"#/channels/inbox/messages/{name}"} for name in received],
            },
        },
        "components": {"messages": {**sent, **received}, "schemas": schemas},
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def _messages(union: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    messages: dict[str, Any] = {}
    for message in get_args(union):
        schema = TypeAdapter(message).json_schema(ref_template="#/components/schemas/{model}")
        schemas |= {name: _closed(part) for name, part in schema.pop("$defs", {}).items()}
        (name,) = schema["properties"]["type"].pop("enum", None) or [
            schema["properties"]["type"]["const"]
        ]
        summary = inspect.cleandoc(schema.pop("description"))
        messages[name] = {
            "name": name,
            "summary": re.sub(r"\s+", " ", summary),
            "payload": _closed(schema),
            "examples": [{"payload": example} for example in EXAMPLES[name]],
        }
    return messages


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of exactly these fields, without titles that only repeat their names."""
    schema.pop("title", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
    return {**schema, "additionalProperties": False} if "properties" in schema else schema
