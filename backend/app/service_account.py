"""What `FCM_SERVICE_ACCOUNT` may say: a Google service account's key, or the file that holds it."""

from pathlib import Path
from typing import Annotated, Self

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

Text = Annotated[str, Field(min_length=1)]


class ServiceAccount(BaseModel):
    """A key that Google's console gives out as JSON.

    Args:
        token_uri: where a signed assertion is changed for an access token.
    """

    model_config = ConfigDict(frozen=True)

    project_id: Text
    client_email: Text
    private_key: SecretStr
    private_key_id: str | None = None
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 -- an address

    @field_validator("private_key")
    @classmethod
    def _rsa_key(cls, value: SecretStr) -> SecretStr:
        try:
            key = load_pem_private_key(value.get_secret_value().encode(), password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, RSAPrivateKey):
            raise ValueError("must be an RSA private key in PEM, with its line breaks")
        return value

    @field_validator("token_uri")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if not value.startswith(("https://", "http://")):
            raise ValueError("must be an https:// address")
        return value

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the account.

        Args:
            text: its JSON, or the path of a file that holds it.

        Raises:
            ValueError: it is neither; the message says what is wrong, and repeats no secret.
        """
        if not text.lstrip().startswith("{"):
            try:
                text = Path(text).expanduser().read_text()
            except (OSError, ValueError):
                raise ValueError(
                    "must be a service account's JSON, or the path of a file that can be read"
                ) from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = [
                ".".join(str(part) for part in item["loc"])
                + f" {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_url=False, include_input=False)
            ]
            raise ValueError(
                "must be the JSON of a service account's key: " + "; ".join(problems)
            ) from None
