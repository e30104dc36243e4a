"""Two small servers to compare with: the bare framework, and one INSERT per request.

Both take the create call's body with the same framework and the same server, in one process. The
first does nothing with it; the second stores one row of it in a transaction of its own, which is
neither decided, nor given a place in an inbox, nor queued.

    python -m bench.peers PORT POSTGRESQL_URL
"""

import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any
from uuid import UUID

import asyncpg
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel
from uuid_utils.compat import uuid7

from app.db.database import dumps
from app.schemas.notification import CreateNotification
from app.serve import build_server
from bench.load import HOST
from bench.stack import Stack, free_ports, wait_answers

BARE = "/bare"
INSERT = "/insert"
CONNECTIONS = 16
CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS bench_peer (
        id UUID PRIMARY KEY, user_id UUID, type TEXT, title TEXT, body TEXT, data JSONB,
        created_at TIMESTAMPTZ DEFAULT now()
    )
"""
STORE = """
    INSERT INTO bench_peer (id, user_id, type, title, body, data) VALUES ($1, $2, $3, $4, $5, $6)
"""


class Stored(BaseModel):
    """The answer to a create call."""

    id: UUID


def create_peers(database_url: str) -> FastAPI:
    """The application of both servers."""
    pool: Any = None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        nonlocal pool
        create_pool: Any = asyncpg.create_pool  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        async with create_pool(database_url, max_size=CONNECTIONS) as pool:
            await pool.execute(CREATE_TABLE)
            yield

    app = FastAPI(lifespan=lifespan, openapi_url=None)

    @app.post(BARE, status_code=202)
    async def bare(wanted: CreateNotification) -> Stored:  # pyright: ignore[reportUnusedFunction]
        return Stored(id=wanted.user_id)

    @app.post(INSERT, status_code=202)
    async def insert(wanted: CreateNotification) -> Stored:  # pyright: ignore[reportUnusedFunction]
        stored = Stored(id=uuid7())
        values = (wanted.user_id, wanted.type.value, wanted.title, wanted.body, dumps(wanted.data))
        await pool.execute(STORE, stored.id, *values)
        return stored

    @app.get("/readyz")
    async def ready() -> None:  # pyright: ignore[reportUnusedFunction]
        return

    return app


@contextmanager
def running_peers(stack: Stack) -> Generator[int]:
    """Run both beside a stack, on its PostgreSQL; gives their port."""
    (port,) = free_ports(1)
    owner = stack.settings.database_owner_url
    assert owner is not None
    process = Popen(
        [sys.executable, "-m", "bench.peers", str(port), owner.get_secret_value()],
        cwd=Path(__file__).parents[1],
        stdout=DEVNULL,
    )
    try:
        wait_answers(port, "/readyz", process)
        yield port
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    uvloop.run(build_server(create_peers(sys.argv[2]), HOST, int(sys.argv[1])).serve())
