"""The declarative base, and the column types every table shares."""

from datetime import datetime
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import JsonValue
from sqlalchemy import DateTime, ForeignKey, MetaData, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import DeclarativeBase, mapped_column

type_annotations: dict[Any, Any] = {
    datetime: DateTime(timezone=True),
    UUID: PG_UUID(as_uuid=True),
    str: Text(),
    dict[str, JsonValue]: JSONB(),
    list[JsonValue]: JSONB(),
}


class Base(DeclarativeBase):
    """Base of all tables; the migrations create them, a test holds both equal."""

    metadata = MetaData()
    type_annotation_map: ClassVar = type_annotations


Id = Annotated[UUID, mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))]
UserId = Annotated[UUID, mapped_column(ForeignKey("users.id", ondelete="CASCADE"))]
Name20 = Annotated[str, mapped_column(String(20))]
Name50 = Annotated[str, mapped_column(String(50))]
CreatedAt = Annotated[datetime, mapped_column(server_default=text("now()"))]
EmptyObject = Annotated[dict[str, JsonValue], mapped_column(server_default=text("'{}'::jsonb"))]
Zero = Annotated[int, mapped_column(server_default=text("0"))]
