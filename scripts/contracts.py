"""Writes what is generated from the code and checked in, or with --check says what has drifted.

backend/openapi.json       the API, and from it the front end's types
backend/asyncapi.yaml      the socket, from `app.realtime.messages`
docs/configuration.md      every variable, from `app.config`
docs/errors.md             every error code, from `app.errors`
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

from asyncapi import asyncapi

from app.config import Settings
from app.errors import NotifyError
from app.main import create_app

ROOT = Path(__file__).parents[1]
FRONTEND_TYPES = ROOT / "frontend/packages/client/src/generated/api.ts"


def openapi() -> str:
    """The API's description."""
    settings = Settings(_env_file=None, app_env="production")
    return json.dumps(create_app(settings).openapi(), indent=2, ensure_ascii=False) + "\n"


def configuration() -> str:
    """The reference of all variables."""
    lines = [
        "# Configuration",
        "",
        "Every variable, from the environment or a `.env` file in the working directory. An empty",
        "value counts as unset; an invalid one stops the start, naming the variable.",
        "",
        "| variable | default | meaning |",
        "| --- | --- | --- |",
    ]
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        shown = "" if default in (None, "", ()) else f"`{_plain(default)}`"
        options = [item for item in get_args(field.annotation) if isinstance(item, str)]
        meaning = (field.description or "").replace("|", "\\|")
        if options:
            meaning += " One of " + ", ".join(f"`{option}`" for option in options) + "."
        lines.append(f"| `{name.upper()}` | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def errors() -> str:
    """The reference of all error codes."""
    lines = [
        "# Error codes",
        "",
        'Every error answers `{"error": {"code", "message", "details": [{"path", "code",',
        '"message"}]}, "correlation_id"}`. Codes are stable; messages are for people.',
        "",
        "| code | status | when |",
        "| --- | --- | --- |",
    ]
    for error in [NotifyError, *NotifyError.__subclasses__()]:
        when = (error.__doc__ or "").splitlines()[0]
        if error is NotifyError:
            when = "A fault of ours; the log has it under the correlation id."
        lines.append(f"| `{error.code}` | {error.status} | {when} |")
    return "\n".join(lines) + "\n"


GENERATED = {
    ROOT / "backend/openapi.json": openapi,
    ROOT / "backend/asyncapi.yaml": asyncapi,
    ROOT / "docs/configuration.md": configuration,
    ROOT / "docs/errors.md": errors,
}


def frontend_types() -> str:
    """TypeScript types of the API."""
    node = ROOT / ".venv/bin/node"
    script = ROOT / "frontend/node_modules/openapi-typescript/bin/cli.js"
    command = [str(node), str(script), str(ROOT / "backend/openapi.json")]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=ROOT / "frontend"
    )
    return done.stdout


def main() -> int:
    """Write or check; returns the exit status."""
    check = "--check" in sys.argv
    drifted: list[Path] = []
    for path, make in {**GENERATED, FRONTEND_TYPES: frontend_types}.items():
        text = make()
        if path.exists() and path.read_text() == text:
            continue
        drifted.append(path)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in drifted:
        print(
            ("drifted, run `make contracts`: " if check else "wrote ") + str(path.relative_to(ROOT))
        )
    return 1 if check and drifted else 0


if __name__ == "__main__":
    sys.exit(main())
