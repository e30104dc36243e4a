"""The shipped templates with values: for golden files, and for letters that are looked at."""

from collections.abc import Mapping
from typing import Any

from app.rendering.base import CannotRender, Job
from app.rendering.renderer import ProcessRenderer
from app.rendering.variables import declared, values_of
from app.services.wording import CLEANERS
from app.shipped_templates import ShippedTemplate


async def said(
    renderer: ProcessRenderer, shipped: ShippedTemplate, given: Mapping[str, Any]
) -> dict[str, str]:
    """What a template says on every channel, as it would be stored."""
    values = values_of(declared(shipped.variables), given)
    (texts,) = await renderer.render([Job(shipped.texts, values, shipped.language)])
    assert not isinstance(texts, CannotRender), texts
    return {field: CLEANERS[field](text) for field, text in texts.items()}
