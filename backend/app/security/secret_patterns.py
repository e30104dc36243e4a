"""What secrets look like (SEC-001): fixed patterns, each with words it never goes without.

Every pattern is linear: it starts at a fixed prefix that a run of its own characters cannot
contain again (the look-behinds see to that), and repeats a single class.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Secret:
    """A kind of secret.

    Args:
        kind: stable name, told to callers.
        hints: lower-case texts, one of which stands in or before every such secret; without any,
            there is nothing to tell by.
        spans: where a text holds some.
    """

    kind: str
    hints: tuple[str, ...]
    spans: Callable[[str], Iterator[Span]]


def _all(pattern: str, flags: int = 0) -> Callable[[str], Iterator[Span]]:
    regex = re.compile(pattern, flags)
    return lambda text: (match.span() for match in regex.finditer(text))


def _word(kind: str, hints: str, pattern: str) -> Secret:
    """A token of letters, digits and underscores, known by how it begins."""
    return Secret(kind, tuple(hints.split()), _all(rf"(?<!\w)(?:{pattern})", re.ASCII))


def _dashed(kind: str, hints: str, pattern: str) -> Secret:
    """A token that may hold dashes, too."""
    return Secret(kind, tuple(hints.split()), _all(rf"(?<![\w-])(?:{pattern})", re.ASCII))


def _unworded(kind: str, hints: str, pattern: str) -> Secret:
    """A token that begins like an ordinary name may, such as `sk-loading-spinner-icon`."""
    token = _dashed(kind, hints, pattern)

    def spans(text: str) -> Iterator[Span]:
        return (span for span in token.spans(text) if NO_WORDS.search(text, *span))

    return Secret(kind, token.hints, spans)


NO_WORDS = re.compile(r"[0-9A-Z]|[a-z]{30}")

# --- keys and headers --------------------------------------------------------------------------

PRIVATE_KEY = (
    r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [^\n-]{0,48}-----|\Z)"
)
BEARER = re.compile(r"(?<!\w)bearer[ \t]{1,4}([\w.~+/-]{8,}=*)", re.IGNORECASE)
BASIC = re.compile(r"(?<!\w)basic[ \t]{1,4}([a-z0-9+/]{6,}={0,2})", re.IGNORECASE)
LONGEST_WORD = 32


def _header_values(text: str) -> Iterator[Span]:
    for match in BEARER.finditer(text):
        value = match[1]
        # "Bearer authentication" is prose.
        if any(character.isdigit() for character in value) or len(value) > LONGEST_WORD:
            yield match.span(1)
    for match in BASIC.finditer(text):
        if _is_basic(match[1]):
            yield match.span(1)


def _is_basic(value: str) -> bool:
    try:
        return b":" in base64.b64decode(value + "=" * (-len(value) % 4))
    except (binascii.Error, ValueError):
        return False


# --- assignments in prose, code and settings ---------------------------------------------------

NAMED = re.compile(
    r"""
    (?P<name> pass(?:word|wd|phrase) | (?<![a-z])pwd | secret
      | (?:access|account|api|encryption|master|private|secret|signing)[ _-]?key
      | (?:access|api|auth|bearer|bot|(?<![a-z])id|refresh|security|session)[ _-]?token
      | (?<![\w-])token )
    (?: [ \t"'`*_\\|] | </?[a-z]{1,10}> ){0,6}
    (?P<sign> [:=]=? >? | is\b :? )
    (?: [ \t*_\\] | </?[a-z]{1,10}> ){0,6}
    (?: "(?P<double>[^"\n]{1,256}?)\\?" | '(?P<single>[^'\n]{1,256}?)\\?'
      | `(?P<back>[^`\n]{1,256})`
      | ["'`]? (?P<bare> (?: [^\s"'`<&,;] | '(?=\w) | <(?!/?[a-z])
                           | [&,;](?! [\w.-]{1,64}[=:] | \s | $ ) )+ ) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
QUOTED = ("double", "single", "back")
NO_VALUES = re.compile(  # but states, and the words of code
    r"(?:ac|inac)tive|(?:dis|en)abled|(?:in)?correct|(?:in)?valid|(?:un)?changed|(?:un)?set|added"
    r"|created|deleted|expire[ds]|generated|hidden|mismatch|missing|n/a|no|none|null|off|ok|on"
    r"|optional|pending|refreshed|removed|renewed|required|reset|revoked|rotated|strong|true|false"
    r"|undefined|updated|weak|wrong|yes"
    r"|any|await|bool(?:ean)?|bytes|int(?:eger)?|new|number|object|str(?:ing)?|unknown|void",
    re.IGNORECASE,
)
STAND_INS = re.compile(  # `${SECRET}`, `$SECRET`, `%SECRET%`, `{secret}`; and email addresses
    r"\$[{(].*|\$[A-Z][A-Z0-9_]*|%[A-Z0-9_]+%|\{{1,2}[\w .]*\}{0,2}"
    r"|[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}"
)
CODE = re.compile(r"[A-Za-z_][\w.]*[(\[].*|[A-Za-z_]+(?:\.[A-Za-z_]+)+")  # `get()`, `user.secret`
ONE_TIME = re.compile(r"[0-9]{4,8}")
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
AROUND = ".,;:!?*_()[]{}|\\"
SHORTEST = 3
SHORTEST_TOLD = 6  # after "is"
LONGEST_PROSE = 256


def _named_values(text: str) -> Iterator[Span]:
    start = 0
    while match := NAMED.search(text, start):
        quote = next((name for name in QUOTED if match[name] is not None), None)
        if quote is not None:
            if not _is_no_secret(match, match[quote]):
                yield match.span(quote)
            start = match.end()
            continue
        first, last = match.span("bare")
        value = match["bare"].rstrip(".,;:*_)]}|\\")
        is_prose = _is_no_secret(match, value) or _is_prose(match, value, text[last : last + 2])
        if not is_prose:
            yield first, first + len(value)
        # Of what is no secret, the next name may be a part: `secret: password: x`. Looking again
        # at more than a few words would take time by the square of the text.
        start = first if is_prose and last - first <= LONGEST_PROSE else last


def _is_no_secret(match: re.Match[str], value: str) -> bool:
    """Whether what follows a name is known not to be its value, in quotes or not."""
    if NO_VALUES.fullmatch(value.strip(AROUND)) or STAND_INS.fullmatch(value):
        return True
    # "Your security token is 482913", but `token=482913`
    is_told = match["sign"][0] != "="
    return is_told and bool(
        ONE_TIME.fullmatch(value) or (match["name"].lower() == "token" and HASH.fullmatch(value))
    )


def _is_prose(match: re.Match[str], value: str, rest: str) -> bool:
    """Whether words or code follow the name, not a value; `rest` is how the text goes on."""
    word = value.strip(AROUND)
    if len(word) < SHORTEST or CODE.fullmatch(value) or word.lower() == match["name"].lower():
        return True
    sign = match["sign"]
    if sign[0] in "iI":
        has_digit = any(character.isdigit() for character in word)
        return len(word) < SHORTEST_TOLD or not has_digit
    if sign != ":" or len(word) > LONGEST_WORD or not word.isalpha():
        return False
    # "Password: please choose one", but "Password: letmein"
    return rest[:1] in (" ", "\t") and not rest[1:].isspace()


# --- payment cards -----------------------------------------------------------------------------

CARD_LIKE = re.compile(
    r"(?<![\w-])(?<![0-9][.,])(?:[2-6][0-9]{13,15}"
    r"|[2-6][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{5})"
    r"(?![\w-]|[.,][0-9])",
    re.ASCII,
)
ISSUED = re.compile(
    r"4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
)


def _cards(text: str) -> Iterator[Span]:
    for match in CARD_LIKE.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if ISSUED.fullmatch(digits) and _passes_luhn(digits):
            yield match.span()


def _passes_luhn(digits: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled // 10 + doubled % 10
    return total % 10 == 0


# --- all of them -------------------------------------------------------------------------------

SECRETS: tuple[Secret, ...] = (
    Secret("private_key", ("private key",), _all(PRIVATE_KEY, re.DOTALL)),
    _word("aws_access_key", "akia asia abia acca", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?!\w)"),
    _word("github_token", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
          r"(?:gh[pousr]|github_pat)_\w{20,}"),
    _dashed("gitlab_token", "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glagent-",
            r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent)-[\w-]{20,}(?:\.[\w-]+){0,2}"),
    _dashed("slack_token", "xox xapp-", r"xox[abeoprs](?:\.xox[bp])?-[\w-]{10,}|xapp-[\w-]{10,}"),
    _word("stripe_key", "sk_live_ sk_test_ rk_live_ rk_test_ whsec_",
          r"[sr]k_(?:live|test)_\w{10,}|whsec_[\w+/]{16,}=*"),
    _dashed("anthropic_key", "sk-ant-", r"sk-ant-[\w-]{20,}"),
    _unworded("openai_key", "sk-", r"sk-(?!ant-)[\w-]{20,}"),
    _dashed("google_key", "aiza ya29. gocspx-",
            r"AIza[\w-]{30,}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"),
    _word("npm_token", "npm_", r"npm_\w{30,}"),
    _dashed("pypi_token", "pypi-", r"pypi-[\w-]{50,}"),
    _dashed("sendgrid_key", "sg.", r"SG\.[\w-]{16,32}\.[\w-]{16,}"),
    _unworded("resend_key", "re_", r"re_[A-Za-z0-9]{6,12}_\w{16,}"),
    _word("huggingface_token", "hf_", r"hf_\w{30,}"),
    _dashed("docker_token", "dckr_", r"dckr_[a-z]{2,4}_[\w-]{20,}"),
    _dashed("vault_token", "hvs. hvb.", r"hv[sb]\.[\w-]{20,}"),
    _word("digitalocean_token", "_v1_", r"do[opr]_v1_\w{60,}"),
    _word("shopify_token", "shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_\w{30,}"),
    Secret("jwt", ("eyj",), _all(r"(?<![\w.-])eyJ[\w-]{10,}(?:\.[\w-]*){2,4}", re.ASCII)),
    Secret("authorization", ("bearer", "basic"), _header_values),
    Secret("named_secret", ("pass", "pwd", "secret", "key", "token"), _named_values),
    Secret("card_number", (), _cards),
)  # fmt: skip

# Names of fields whose values are secrets, in lower case with nothing but letters and digits.
SECRET_FIELD = re.compile(
    r".*(?:password|passwd|passphrase|pwd|secret|credential"
    r"|(?:access|account|api|encryption|master|private|secret|signing)key"
    r"|(?:access|api|auth|bearer|bot|refresh|security|session)token)s?"
    r"|idtokens?|token|cvv|cvc|cardnumber"
)

# --- what stays --------------------------------------------------------------------------------

# What stands before the host of an address, after `://`. Unlike what is masked, it is taken out
# where it is a secret: the address then still leads where it did.
BEFORE_HOST: Final = r"""[^\s/?#"'<>`|\\()\[\]{},;]*@"""
USERINFO = re.compile(rf"(?<=://){BEFORE_HOST}")

MASK: Final = "[masked]"
SCHEME: Final = r"(?:https?|(?<![a-z0-9+.-])[a-z][a-z0-9+.-]{1,63})://"


def _link(end: str = "") -> str:
    """An address with its scheme, up to what none holds, or to `end`.

    In `Endpoint=sb://host/;SharedAccessKey=…` it ends where the next setting begins.
    """
    authority = rf"""[^\s<>"`;/?#{end}]*"""
    rest = rf"""(?: [^\s<>"`;{end}] | (?<!/); | ;(?!\w{{1,64}}=) )*"""
    return rf"{SCHEME} {authority} (?: [/?#] {rest} )?"


# A string that is nothing but an address, absolute or relative.
ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://|[/?#])\S*", re.IGNORECASE)

# What stays as it is, whatever stands in it.
LEFT_ALONE = tuple(
    re.compile(pattern, re.IGNORECASE | re.VERBOSE)
    for pattern in (
        rf"""'{_link("'")} | {_link()}""",
        # Relative ones, in Markdown and HTML. Parentheses may be part of one in pairs.
        r"""
        \]\( [ \t]*\n?[ \t]* (?: <[^<>\n]* | (?: [^\s()<] | \([^\s()]*\) )* )
      | \]:  [ \t]*\n?[ \t]* (?: <[^<>\n]* | [/?\#]\S* )
      | href [ \t]*=[ \t]* (?: "[^"\n]* | '[^'\n]* | [^\s"'<>]* )
        """,
        # UUIDs, and what was masked before.
        r"""
        (?<![0-9a-f]) [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12} (?![0-9a-f])
      | \[masked\]
        """,
    )
)
