"""One import serves all: creating, claiming and explaining run the same function (REQ-002).

The source is read, not run. A name may be imported under another, so imports are resolved to what
they name; and since a module that is imported as a whole hides what is used of it, neither the
policy's module nor the one that runs it may be imported so, by whatever means.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import app

APP = Path(app.__file__).parent
POLICY, RUNNER = "app.policy.routing", "app.pipeline.decide"


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the application by its name."""
    return {
        ".".join(("app", *path.relative_to(APP).with_suffix("").parts)): ast.parse(path.read_text())
        for path in sorted(APP.rglob("*.py"))
    }


@cache
def nodes(module: str) -> list[ast.AST]:
    """All of a module's."""
    return list(ast.walk(modules()[module]))


def imported(module: str) -> Iterator[tuple[str, str]]:
    """What is imported, in full, with the name it goes by."""
    for node in nodes(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are banned"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", alias.asname or alias.name


def importers(name: str) -> dict[str, str]:
    """Modules that import something, each with what they call it."""
    return {
        module: called
        for module in modules()
        for found, called in imported(module)
        if found == name
    }


def calls_of(called: str, module: str) -> list[str]:
    """The functions that call a name, as often as they do; every other use fails."""
    uses = sum(isinstance(node, ast.Name) and node.id == called for node in nodes(module))
    callers = [
        function.name
        for function in nodes(module)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == called
    ]
    assert uses == len(callers), f"{called} is used without being called"
    return callers


def attribute_calls(attribute: str) -> list[tuple[str, str]]:
    """Modules and functions that call something's attribute of this name."""
    return [
        (module, function.name)
        for module in modules()
        for function in nodes(module)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == attribute
    ]


def test_nobody_imports_them_in_a_way_that_hides_what_is_used() -> None:
    for module in (POLICY, RUNNER):
        assert importers(module) == {}
        assert importers(f"{module}.*") == {}
    dynamic = {"importlib", "importlib.import_module", "pkgutil", "runpy", "sys.modules"}
    for module in modules():
        assert not dynamic & {found for found, _ in imported(module)}, module
        names = {node.id for node in nodes(module) if isinstance(node, ast.Name)}
        assert not names & {"__import__", "eval", "exec"}, module


def test_the_policy_is_run_in_one_place() -> None:
    assert importers(f"{POLICY}.decide") == {RUNNER: "decide"}
    assert calls_of("decide", RUNNER) == ["run_policy"]
    assert calls_of("decide", POLICY) == []
    assert importers(f"{RUNNER}.decide") == {}
    private = [f"{POLICY}._decide", f"{POLICY}._digest", f"{POLICY}._reason_to_skip"]
    assert [importers(name) for name in private] == [{}, {}, {}]


def test_creating_claiming_and_explaining_all_run_it() -> None:
    # Claims directly, the others through the user whom they looked at.
    assert importers(f"{RUNNER}.run_policy") == {
        "app.pipeline.gather": "run_policy",
        "app.pipeline.reconsider": "run_policy",
        "app.pipeline.summary": "run_policy",
    }
    assert calls_of("run_policy", "app.pipeline.reconsider") == ["_decided", "_limited"]
    assert calls_of("run_policy", "app.pipeline.gather") == ["_run"]
    assert calls_of("run_policy", "app.pipeline.summary") == ["_may_go"]
    assert calls_of("run_policy", RUNNER) == ["decide"]  # Target's
    assert sorted(attribute_calls("decide")) == [
        ("app.pipeline.enqueue", "prepare"),
        ("app.services.explain_service", "explain"),
        ("app.services.explain_service", "preview"),
    ]
