"""The process that renders may end at any time; the program goes on (SEC-005, A03)."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pydantic import JsonValue

from app.rendering.base import CannotRender, Checked, Job, Rendered
from app.rendering.process import MEMORY, read_frame
from app.rendering.renderer import MODULE, ProcessRenderer

SLOW = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
DOUBLING = (
    "{% set ns = namespace(t='0123456789abcdef') %}"
    "{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t | length }}"
)
WITHIN = 60  # seconds, far more than anything here takes


@pytest.fixture
async def renderer() -> AsyncGenerator[ProcessRenderer]:
    async with ProcessRenderer() as renderer:
        yield renderer


@pytest.fixture
async def strict() -> AsyncGenerator[ProcessRenderer]:
    """One that gives a job less time."""
    async with ProcessRenderer(seconds=0.3) as renderer:
        yield renderer


def job(body: str, **variables: JsonValue) -> Job:
    return Job({"title": "Title", "body": body}, variables)


def body_of(rendered: Rendered) -> str:
    assert isinstance(rendered, dict), rendered
    return rendered["body"]


def fault_of(rendered: Rendered) -> str:
    assert isinstance(rendered, CannotRender), rendered
    return f"{rendered.field} {rendered.code}"


async def pid_of(renderer: ProcessRenderer) -> int:
    """The process, started if it was not."""
    await renderer.render([job("x")])
    assert renderer.pid is not None
    return renderer.pid


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN):
        while not is_so():
            await asyncio.sleep(0.01)


def used(process: psutil.Process) -> float:
    """Seconds of processor time; endless once it has ended of it."""
    try:
        return sum(process.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return float("inf")


async def test_jobs_are_rendered_in_order_each_field_by_its_rules(
    renderer: ProcessRenderer,
) -> None:
    assert renderer.pid is None  # nothing to do, no process
    sources = {"title": "{{ n | number }}", "email_html": "<p>{{ t }}</p>", "email_text": "{{ t }}"}
    jobs = [Job(sources, {"n": 1234.5, "t": "<b>"}, tag) for tag in ("en", "de", "en")]
    said = {"email_html": "<p>&lt;b&gt;</p>", "email_text": "<b>"}
    assert await renderer.render(jobs) == [
        {"title": "1,234.5", **said},
        {"title": "1.234,5", **said},
        {"title": "1,234.5", **said},
    ]
    assert await renderer.render([]) == []


async def test_sources_are_checked_without_values(renderer: ProcessRenderer) -> None:
    checked = await renderer.check({"title": "{{ a }}", "body": "{{ b.c }}{% set d = a %}"})
    assert checked == Checked(frozenset({"a", "b"}))
    for source, code in (
        ("{{ a", "syntax_error"),
        ("{% include 'a' %}", "forbidden"),
        ("{{ a | nosuch }}", "syntax_error"),
        ("{{ " + "(" * 9999 + " }}", "too_large"),
    ):
        answer = await renderer.check({"title": "fine", "push_body": source})
        assert isinstance(answer, CannotRender)
        assert (answer.field, answer.code) == ("push_body", code)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (SLOW, "too_slow"),
        (DOUBLING, "too_large"),
        ("{{ 'a' * 10**9 }}", "too_large"),
        ("{% for a in range(9999) %}0123456789{% endfor %}", "too_large"),
        ("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", "too_large"),
        ("{{ " + "[" * 9999 + "]" * 9999 + " }}", "too_large"),
        ("{{ missing }}", "undefined_variable"),
        ("{{ ''.__class__ }}", "forbidden"),
    ],
    ids=["loops", "doubling", "factor", "flood", "recursion", "nesting", "undefined", "forbidden"],
)
async def test_one_that_cannot_be_rendered_is_told_so_and_the_others_are(
    renderer: ProcessRenderer, source: str, code: str
) -> None:
    jobs = [job("before"), job(source), job("after {{ n }}", n=1)]
    before, refused, after = await renderer.render(jobs)
    assert (body_of(before), fault_of(refused), body_of(after)) == (
        "before",
        f"body {code}",
        "after 1",
    )
    assert body_of((await renderer.render([job("next")]))[0]) == "next"


async def test_callers_at_the_same_time_do_not_pay_for_each_other(
    strict: ProcessRenderer,
) -> None:
    answers = await asyncio.gather(
        *(strict.render([job(SLOW if number == 3 else f"{number}")]) for number in range(8))
    )
    (refused,) = answers.pop(3)
    assert fault_of(refused) == "body too_slow"
    assert [body_of(answer) for (answer,) in answers] == ["0", "1", "2", "4", "5", "6", "7"]


async def test_one_that_is_killed_is_replaced(renderer: ProcessRenderer) -> None:
    pid = await pid_of(renderer)
    os.kill(pid, signal.SIGKILL)
    assert body_of((await renderer.render([job("again")]))[0]) == "again"
    assert renderer.pid != pid
    assert not psutil.pid_exists(pid)  # nor is it left as a zombie


async def test_killed_in_the_middle_of_a_job_it_is_tried_once_more(
    strict: ProcessRenderer,
) -> None:
    pid = await pid_of(strict)
    process = psutil.Process(pid)
    idle = used(process)
    rendering = asyncio.create_task(strict.render([job(SLOW), job("after")]))
    await until(lambda: used(process) > idle)
    with suppress(psutil.NoSuchProcess):
        process.kill()
    refused, after = await rendering
    # The second process ended for the job's own sake.
    assert (fault_of(refused), body_of(after)) == ("body too_slow", "after")
    assert not psutil.pid_exists(pid)


async def test_one_that_is_stopped_is_given_up() -> None:
    async with ProcessRenderer(patience=2.0) as renderer:
        pid = await pid_of(renderer)
        os.kill(pid, signal.SIGSTOP)
        answers = await renderer.render([job("a"), job("b")])
        assert [body_of(answer) for answer in answers] == ["a", "b"]
        assert not psutil.pid_exists(pid)


async def test_who_goes_away_leaves_nothing_behind(strict: ProcessRenderer) -> None:
    process = psutil.Process(await pid_of(strict))
    idle = used(process)
    rendering = asyncio.create_task(strict.render([job(SLOW), job("left behind")]))
    await until(lambda: used(process) > idle)
    rendering.cancel()
    assert body_of((await strict.render([job("mine")]))[0]) == "mine"


async def test_signals_of_the_terminal_are_not_for_it(renderer: ProcessRenderer) -> None:
    pid = await pid_of(renderer)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert body_of((await renderer.render([job("still")]))[0]) == "still"
    assert renderer.pid == pid


async def test_it_ends_with_its_owner() -> None:
    async with ProcessRenderer() as renderer:
        pid = await pid_of(renderer)
    assert renderer.pid is None
    assert not psutil.pid_exists(pid)


def test_it_ends_quietly_when_nobody_is_left_to_ask() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        assert read_frame(child.stdout) == {"ready": True}  # pyright: ignore[reportArgumentType] -- a pipe's reader is one
        child.stdin.close()
        assert child.wait(WITHIN) == 0
        assert (child.stdout.read(), child.stderr.read()) == (b"", b"")


async def test_it_has_neither_our_secrets_nor_more_than_it_needs(
    renderer: ProcessRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "hunter2")
    process = psutil.Process(await pid_of(renderer))
    assert "hunter2" not in process.environ().values()
    assert not process.net_connections()
    assert process.rlimit(psutil.RLIMIT_AS) == (MEMORY, MEMORY)
    assert process.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    files = {Path(file.path).suffix for file in process.open_files()}
    assert files <= {""}
