"""An identity provider on loopback: keys that come and go, and answers of every kind."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

Json = dict[str, Any]


@dataclass(frozen=True)
class SigningKey:
    """A private key and what is published of it.

    Args:
        published: members of the JWK that differ; those that are None are left out.
    """

    private: Any
    algorithm: str
    kid: str
    published: Json = field(default_factory=dict[str, Any])

    @property
    def jwk(self) -> Json:
        public = get_default_algorithms()[self.algorithm].to_jwk(
            self.private.public_key(), as_dict=True
        )
        told: Json = {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig"}
        told |= self.published
        return {name: value for name, value in told.items() if value is not None}

    def sign(self, claims: Json, **header: Any) -> str:
        """A token, with its key's id unless `kid=None` leaves it out."""
        told = {"kid": self.kid, **header}
        algorithm = told.pop("alg", self.algorithm)
        headers = {name: value for name, value in told.items() if value is not None}
        return jwt.encode(claims, self.private, algorithm=algorithm, headers=headers)


def new_key(algorithm: str = "ES256", **published: Any) -> SigningKey:
    """A key that nobody has seen before."""
    private: Any
    if algorithm == "RS256":
        private = rsa.generate_private_key(65537, 2048)
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(private, algorithm, uuid4().hex, published)


def claims_of(subject: object, **others: Any) -> Json:
    """Claims of a token that is valid for an hour."""
    return {"sub": str(subject), "exp": datetime.now(UTC) + timedelta(hours=1), **others}


class Issuer:
    """Publishes keys at `url` and counts who asks for them.

    Attributes:
        keys: what is published.
        answer: sent in place of the keys: a whole HTTP response; empty drops the connection.
        open: answers wait for it.
        requests: how many asked.
    """

    def __init__(self, keys: Sequence[SigningKey | Json]) -> None:
        self.keys = keys
        self.answer: bytes | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.requests = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks/"

    def answer_of(self, status: str, body: bytes, *headers: str) -> bytes:
        """An HTTP response."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        return "\r\n".join(lines).encode() + body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with suppress(OSError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self.open.wait()
            if self.answer is not None:
                writer.write(self.answer)
            elif request.startswith(b"GET /jwks/ "):
                jwks = [key.jwk if isinstance(key, SigningKey) else key for key in self.keys]
                writer.write(self.answer_of("200 OK", orjson.dumps({"keys": jwks})))
            else:
                writer.write(self.answer_of("404 Not Found", b""))
            await writer.drain()
        writer.close()


@asynccontextmanager
async def running_issuer(*keys: SigningKey | Json) -> AsyncGenerator[Issuer]:
    """An issuer that answers on a port of its own, as long as the context lasts."""
    issuer = Issuer(keys)
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.port = server.sockets[0].getsockname()[1]
    try:
        yield issuer
    finally:
        issuer.open.set()
        server.close()
