"""PostgreSQL and Valkey for a machine that has neither, out of Python packages.

They run when `DATABASE_URL` or `REDIS_URL` is unset, keep their data under `DATA_DIR`, listen on
the loopback interface only, and end with the program that started them.
"""

from app.embedded.program import ServerFailed
from app.embedded.servers import running_servers

__all__ = ["ServerFailed", "running_servers"]
