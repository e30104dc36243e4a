"""Operators write here what notifications say (REQ-004)."""

from typing import Annotated

from fastapi import Path, Query

from app.api.dependencies import Context, Operator
from app.api.json_body import JsonRoute
from app.api.routing import v1_routes
from app.policy.kinds import NotificationType
from app.schemas.template import (
    TEMPLATE_NAME,
    CreateTemplate,
    Language,
    PreviewTemplate,
    RenderedTemplate,
    StoredTemplate,
    TemplateName,
    TemplatePage,
    UpdateTemplate,
)
from app.services.template_service import Filter

router = v1_routes(prefix="/notifications/templates", tags=["templates"], route_class=JsonRoute)

Name = Annotated[
    str, Path(pattern=TEMPLATE_NAME, description="The template's name.", examples=["task_assigned"])
]


@router.get("")
async def list_templates(
    caller: Operator,
    context: Context,
    type: NotificationType | None = None,
    language: Language | None = None,
    name: TemplateName | None = None,
    all_versions: Annotated[
        bool, Query(description="Former and deleted versions too, not only the active ones.")
    ] = False,
    limit: Annotated[int, Query(ge=1, le=100, description="Items per page.")] = 20,
    cursor: Annotated[
        str | None, Query(max_length=512, description="`next_cursor` of a page.")
    ] = None,
) -> TemplatePage:
    """Templates by name, language and version."""
    wanted = Filter(type=type, language=language, name=name, all_versions=all_versions)
    return await context.templates.page(wanted, limit=limit, cursor=cursor)


@router.post("", status_code=201)
async def create_template(
    wanted: CreateTemplate, caller: Operator, context: Context
) -> StoredTemplate:
    """Add a template that is new in its language."""
    return await context.templates.create(wanted)


@router.get("/{name}")
async def get_template(
    name: Name,
    caller: Operator,
    context: Context,
    language: Annotated[
        Language | None, Query(description="Default: English, else the first there is.")
    ] = None,
    version: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="Default: the active one.")
    ] = None,
) -> StoredTemplate:
    """One version of a template."""
    return await context.templates.get(name, language, version)


@router.put("/{name}")
async def update_template(
    name: Name,
    wanted: UpdateTemplate,
    caller: Operator,
    context: Context,
    language: Annotated[
        Language | None, Query(description="Default: the body's `language`, else English.")
    ] = None,
) -> StoredTemplate:
    """Add a version, which is the active one from now on; what is not sent stays as it is."""
    return await context.templates.update(name, language, wanted)


@router.delete("/{name}", status_code=204)
async def delete_template(
    name: Name,
    caller: Operator,
    context: Context,
    language: Annotated[Language | None, Query(description="Default: all of them.")] = None,
) -> None:
    """Let no call use it any more; its versions can still be read by their numbers."""
    await context.templates.delete(name, language)


@router.post("/{name}/preview")
async def preview_template(
    name: Name, wanted: PreviewTemplate, caller: Operator, context: Context
) -> RenderedTemplate:
    """What it says, or would say with other texts; nothing is stored."""
    return await context.templates.preview(name, wanted)
