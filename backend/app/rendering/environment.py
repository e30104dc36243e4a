"""The sandbox templates run in: data only, and nothing that grows without bound (SEC-005, A03).

Names, attributes, filters and functions are listed here; what is not listed is refused. Nothing
reads another template, and no operator or filter makes a text or list much larger than what went
in: what is left to bound are time, memory and output, which the process does (`process.py`).
"""

import re
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, cast

from jinja2 import StrictUndefined, nodes
from jinja2.environment import Template
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.filters import FILTERS, do_join, do_replace, do_round, make_attrgetter
from jinja2.meta import find_undeclared_variables
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_eval_context

from app.rendering.conventions import FILTERS as CONVENTIONS
from app.rendering.conventions import Unfit
from app.rendering.values import Kind, escaped_markup, shown_in

MAX_SOURCE: Final = 64 * 1024  # characters
MAX_TEXT: Final = 256 * 1024  # characters that an operator or filter may make
MAX_ITEMS: Final = 10_000
MAX_BITS: Final = 1_024  # of whole numbers
MAX_DIGITS: Final = 20  # that a number is rounded to

ALLOWED_FILTERS: Final = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "groupby", "int", "items", "last", "length", "list", "lower", "map", "max", "min", "reject",
    "rejectattr", "reverse", "select", "selectattr", "sort", "string", "sum", "title", "trim",
    "truncate", "unique", "upper", "urlencode", "wordcount",
})  # fmt: skip
ALLOWED_METHODS: Final[Mapping[type, frozenset[str]]] = {
    str: frozenset({
        "capitalize", "casefold", "count", "endswith", "find", "isalnum", "isalpha", "isdigit",
        "islower", "isspace", "isupper", "lower", "lstrip", "partition", "removeprefix",
        "removesuffix", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith",
        "strip", "swapcase", "title", "upper",
    }),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    LoopContext: frozenset({
        "changed", "cycle", "depth", "depth0", "first", "index", "index0", "last", "length",
        "nextitem", "previtem", "revindex", "revindex0",
    }),
    Macro: frozenset({"name"}),
}  # fmt: skip
REFUSED_NODES: Final[Mapping[type[nodes.Node], str]] = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.ScopedEvalContextModifier: "autoescape",
}


class Refused(Exception):
    """A template that has no text.

    Args:
        code: one of those that `CannotRender` lists.
        message: a sentence for whoever wrote it, without values.
        line: of the source, where it is known.
    """

    def __init__(self, code: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message if line is None else f"line {line}: {message}"


class TooLarge(Exception):
    """A template makes something larger than anything needs to be."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and runs sources, without reading any other.

    Args:
        kind: of the text, as which the values are escaped.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, kind: Kind = "text") -> None:
        super().__init__(
            autoescape=kind != "text",
            undefined=StrictUndefined,
            finalize=shown_in(kind),
            cache_size=0,
            loader=None,
        )
        self.globals = {"range": _range, "namespace": Namespace}
        self.filters = {
            **{name: FILTERS[name] for name in ALLOWED_FILTERS},
            "join": _join,
            "replace": _replace,
            "round": _round,
            **CONVENTIONS,
        }
        if kind == "markdown":
            self.filters |= dict.fromkeys(("e", "escape"), escaped_markup)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A key of an object, else a method that is allowed."""
        # Keys first, so that data may have one of the name of a method.
        if isinstance(obj, dict) and attribute in obj:
            return cast("dict[str, Any]", obj)[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """None: formatting may blow up a text, and is refused like any other method."""
        return None

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may see an attribute of an object."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, Namespace):
            return True
        return any(
            attr in names for kind, names in ALLOWED_METHODS.items() if isinstance(obj, kind)
        )

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The result of `+`, `*`, `**` or `%`, unless it would be too large."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formatting with % is not available")
        if operator == "+":
            _bounded_sum(left, right)
        elif operator == "*":
            _bounded_product(left, right)
        elif operator == "**":
            _bounded_power(left, right)
        return super().call_binop(context, operator, left, right)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A template, and what it was made from."""

    source: str
    template: Template

    def text(self, context: Mapping[str, Any], most: int) -> str:
        """What it says.

        Args:
            context: all that it sees.
            most: characters that the text may have.

        Raises:
            Refused: there is no text, or it is longer.
        """
        pieces: list[str] = []
        length = 0
        with _told(self.source):
            for piece in self.template.generate(context):
                length += len(piece)
                if length > most:
                    raise TooLarge(f"the text has more than {most} characters")
                pieces.append(piece)
        text = "".join(pieces)
        if not _can_be_stored(text):
            raise Refused("failed", "the text has characters that cannot be stored")
        return text


def compiled(sandbox: Sandbox, source: str) -> Compiled:
    """The source as a template.

    Raises:
        Refused: it is none, or uses what it may not.
    """
    names_in(sandbox, source)
    with _told(source):
        return Compiled(source, sandbox.from_string(source))


def names_in(sandbox: Sandbox, source: str) -> frozenset[str]:
    """The names that a source uses and does not set itself.

    Raises:
        Refused: it is no template, or uses what it may not.
    """
    if len(source) > MAX_SOURCE:
        raise Refused("too_large", f"a template has at most {MAX_SOURCE} characters")
    with _told(source):
        tree = sandbox.parse(source)
        for node in tree.find_all(nodes.Node):
            _refuse_forbidden(sandbox, node)
        return frozenset(find_undeclared_variables(tree) - sandbox.globals.keys())


def _refuse_forbidden(sandbox: Sandbox, node: nodes.Node) -> None:
    """Refuse what is plainly not available before it runs; the rest is refused when it does."""
    said = REFUSED_NODES.get(type(node))
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        said = node.attr
    elif isinstance(node, nodes.Filter) and node.name in FILTERS.keys() - sandbox.filters.keys():
        said = f"the filter {node.name}"
    if said is not None:
        raise Refused("forbidden", f"{said} is not available", node.lineno)


@contextmanager
def _told(source: str) -> Generator[None]:
    """Tell of whatever goes wrong in words that hold nothing of the variables.

    Raises:
        MemoryError: there is no room left for anything.
    """
    try:
        yield
    except (Refused, MemoryError):
        raise
    except TemplateSyntaxError as error:
        raise Refused("syntax_error", error.message or "not a template", error.lineno) from None
    except Exception as error:
        code, message = _reason(error, source)
        raise Refused(code, message, _line(error.__traceback__)) from None


def _reason(error: Exception, source: str) -> tuple[str, str]:
    """Code and message of what went wrong."""
    match error:
        case UndefinedError():
            named = re.findall(r"'([^']+)'", str(error))
            # The key that is missing may be a value, which is nobody's business.
            known = named and re.search(rf"\b{re.escape(named[-1])}\b", source)
            return "undefined_variable", f"{named[-1] if known else 'something'} is undefined"
        case SecurityError():
            return "forbidden", "uses what is not available"
        case TooLarge():
            return "too_large", str(error)
        case RecursionError() | SyntaxError():  # the latter of the code that is made of it
            return "too_large", "nests, or calls itself, too deeply"
        case OverflowError():
            return "too_large", "a number is too large"
        case Unfit():
            return "failed", str(error)
        case _:
            return "failed", f"an operator, filter or test cannot use a value ({_name(error)})"


def _name(error: Exception) -> str:
    return type(error).__name__


def _line(trace: TracebackType | None) -> int | None:
    """The line of the template that was run last."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _can_be_stored(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _size(value: object) -> int | None:
    """How large a text or list is, None for anything else."""
    return len(cast("list[object]", value)) if isinstance(value, str | list | tuple) else None


def _check_size(size: int, of: object) -> None:
    if size > (MAX_TEXT if isinstance(of, str) else MAX_ITEMS):
        raise TooLarge("a text or list becomes too long")


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise TooLarge("a number is too large")


def _bounded_sum(left: Any, right: Any) -> None:
    sizes = _size(left), _size(right)
    if sizes[0] is not None and sizes[1] is not None:
        _check_size(sizes[0] + sizes[1], left)


def _bounded_product(left: Any, right: Any) -> None:
    for sequence, times in ((left, right), (right, left)):
        size = _size(sequence)
        if size is not None and isinstance(times, int):
            _check_size(size * times, sequence)
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())


def _bounded_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        _check_bits(base.bit_length() * abs(exponent))


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    _check_size(len(numbers), numbers)
    return numbers


@pass_eval_context
def _join(
    context: EvalContext, value: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    items = list(value)
    if attribute is not None:
        items = list(map(make_attrgetter(context.environment, attribute), items))
    items = [item if isinstance(item, str) else str(item) for item in items]
    _check_size(sum(map(len, items)) + len(d) * len(items), "")
    return cast("str", do_join(context, items, d))


@pass_eval_context
def _replace(context: EvalContext, s: str, old: str, new: str, count: int | None = None) -> str:
    _check_size(len(s) + s.count(old) * len(new), "")
    return do_replace(context, s, old, new, count)


def _round(value: float, precision: int = 0, method: Any = "common") -> float:
    if abs(precision) > MAX_DIGITS:
        raise TooLarge("a number is too large")
    return do_round(value, precision, method)
