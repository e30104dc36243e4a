"""Reads a letter's HTML as a mail program would, with an implementation other than the writer's."""

from html.parser import HTMLParser
from typing import Final

VOID: Final = frozenset({"br", "hr", "img", "meta", "wbr"})


class Read(HTMLParser):
    """What stands in a page.

    Attributes:
        tags: names of all elements, in order.
        attributes: of all elements, in order.
        links: where they lead, with what they say.
        text: of the body.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict[str, str]]] = []
        self.links: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._link: str | None = None
        self._said: list[str] = []
        self._words: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs), f"repeated attribute: {attrs}"
        self.attributes.append((tag, values))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "a":
            self._link, self._said = values.get("href"), []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag in ("td", "div", "p", "h1", "h2", "h3"):
            self._words.append(" ")
        if tag == "a" and self._link is not None:
            self.links.append((self._link, "".join(self._said).strip()))
            self._link = None

    def handle_data(self, data: str) -> None:
        self._said.append(data)
        if not {"style", "title"} & set(self._open):
            self._words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self._words).split())

    @property
    def addresses(self) -> list[str]:
        """Everything that a program could follow or load."""
        return [
            values[name]
            for _, values in self.attributes
            for name in ("href", "src", "background", "action")
            if name in values
        ]

    @property
    def headings(self) -> list[int]:
        return [
            int(tag[1]) for tag in self.tags if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit()
        ]

    def by_text(self, text: str) -> str:
        """Where the link that says this leads."""
        (found,) = {address for address, said in self.links if said == text}
        return found

    def attribute_of(self, tag: str, name: str) -> str | None:
        """Of the first such element."""
        return next(values.get(name) for found, values in self.attributes if found == tag)
