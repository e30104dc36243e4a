"""Every setting, with its default and its rules; `app.load_settings` reads and completes them.

`docs/configuration.md` is generated from the field descriptions here.
"""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.loopback import is_loopback
from app.secret_settings import (
    EncryptionKeys,
    JwtSecret,
    PostgresUrl,
    RedisUrl,
    ServiceAccountKey,
    ServiceKeys,
    SmtpUrl,
    WebhookSecrets,
    decoded_keys,
    webhook_secrets_of,
)
from app.timezones import checked_timezone

Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(ge=1)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class ConfigurationError(Exception):
    """The environment cannot be used; the message names each variable and its remedy."""


class Settings(BaseSettings):
    """Every variable of the requirements' section 4.2 and of the operators' reference."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    # Process
    app_env: Literal["development", "production"] = Field(
        "development",
        description="`development` generates missing secrets, runs the sandbox and binds loopback "
        "only; `production` refuses to start without its secrets.",
    )
    data_dir: Path = Field(
        Path(".data"), description="Embedded servers' data and generated secrets."
    )
    log_format: Literal["console", "json"] = Field("console", description="Log output format.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    api_host: str = Field("127.0.0.1", description="Address the API listens on.")
    api_port: Port = Field(8000, description="Port of the API, the page and the socket path.")
    public_url: str = Field(
        "", description="Base of links in emails and pushes; default: the API's own address."
    )
    cors_origins: CommaSeparated = Field(
        (), description="Comma-separated origins allowed by CORS and on the WebSocket."
    )
    sandbox_port: Port = Field(
        8025, description="Port of the development sandbox that stands in for outside providers."
    )
    sandbox_smtp_port: Port | None = Field(
        None,
        description="Port on which the sandbox takes mail over SMTP; default: the next after "
        "`SANDBOX_PORT` (8026), if it is free.",
    )
    sandbox_webhooks: bool = Field(
        True,
        description="`false` keeps the sandbox from telling the API what becomes of emails, as "
        "Resend does.",
    )

    # WebSocket
    ws_enabled: bool = Field(True, description="`false` answers the socket path with 404.")
    ws_host: str = Field(
        "", description="Address of the gateway; 127.0.0.1 in development, else 0.0.0.0."
    )
    ws_port: Port = Field(8001, description="Port of the gateway.")
    ws_heartbeat_interval: Positive = Field(
        30, description="Seconds between the pings a client is asked to send."
    )
    ws_max_connections: Positive = Field(10_000, description="Sockets one gateway accepts.")
    ws_max_connections_per_user: Positive = Field(
        20, description="Sockets one user may hold on one gateway."
    )
    ws_send_queue_size: Positive = Field(
        256, description="Frames waiting for one socket before it is closed as too slow (3008)."
    )

    # Database and Redis
    database_url: PostgresUrl | None = Field(
        None, description="PostgreSQL URL the programs log in with; unset: embedded PostgreSQL 18."
    )
    database_owner_url: PostgresUrl | None = Field(
        None,
        description="PostgreSQL URL of the schema's owner, used by `notify migrate` only; "
        "default: `DATABASE_URL`.",
    )
    database_pool_size: Positive = Field(
        8,
        description="Connections each process keeps to PostgreSQL. Changes by users take at most "
        "half of them at once.",
    )
    database_max_overflow: Annotated[int, Field(ge=0)] = Field(
        8, description="Connections beyond the pool size opened under load."
    )
    database_pool_timeout: PositiveSeconds = Field(
        5, description="Seconds to wait for a free connection before answering 503."
    )
    database_transaction_pooler: bool = Field(
        False,
        description="`true` behind PgBouncer or Supavisor in transaction mode: prepared "
        "statements are off.",
    )
    redis_url: RedisUrl | None = Field(
        None,
        description="`redis://` (or `rediss://`, `unix://`) of one Redis or Valkey, or "
        "`redis-cluster://[user:password@]host:port[,host:port…]` (`rediss-cluster://` over TLS) "
        "of a cluster; unset: embedded Valkey.",
    )

    # Who may call
    jwt_secret: JwtSecret | None = Field(
        None, description="HS256 secret of access tokens, at least 32 bytes."
    )
    jwt_jwks_url: str | None = Field(
        None,
        description="Address of the identity provider's JWKS for ES256, RS256 and EdDSA tokens, "
        "instead of `JWT_SECRET` or beside it; https in production.",
    )
    jwt_audience: str | None = Field(None, description="Required `aud` of tokens, once set.")
    jwt_issuer: str | None = Field(None, description="Required `iss` of tokens, once set.")
    internal_service_key: ServiceKeys | None = Field(
        None, description="Key of services; two separated by a comma while rotating."
    )
    notification_encryption_key: EncryptionKeys | None = Field(
        None,
        description="Base64 of 32 bytes for encryption at rest; several separated by commas: the "
        "first encrypts, all decrypt.",
    )

    # Web Push and FCM
    vapid_public_key: str | None = Field(
        None, description="VAPID public key to import into the keyring."
    )
    vapid_private_key: SecretStr | None = Field(
        None, description="VAPID private key to import into the keyring."
    )
    vapid_subject: str = Field(
        "mailto:admin@yourapp.com", description="Contact in VAPID tokens: `mailto:` or `https:`."
    )
    vapid_rotation_days: Positive = Field(
        30, description="Days after which a new VAPID key is offered to browsers."
    )
    push_allow_private_endpoints: bool = Field(
        False,
        description="`true` lets push endpoints and action callbacks be http on loopback; for "
        "tests.",
    )
    fcm_server_key: SecretStr | None = Field(
        None,
        description="Key of the FCM API that was shut down in 2024; only reported as such: set "
        "`FCM_SERVICE_ACCOUNT`.",
    )
    fcm_project_id: Annotated[str, Field(pattern=r"^[a-z0-9.:-]+$")] | None = Field(
        None, description="Firebase project; default: the service account's own."
    )
    fcm_service_account: ServiceAccountKey | None = Field(
        None,
        description="Firebase service-account JSON, or its path; unset in development: the "
        "sandbox's phones.",
    )
    fcm_api_url: str = Field(
        "https://fcm.googleapis.com", description="Base address of FCM, without `/v1`."
    )

    # Email
    resend_api_key: SecretStr | None = Field(
        None, description="Resend API key; unset in development: the sandbox's mailbox."
    )
    resend_api_url: str = Field(
        "https://api.resend.com", description="Base address of Resend's API."
    )
    resend_webhook_secret: WebhookSecrets | None = Field(
        None,
        description="Signing secret of Resend's webhooks (`whsec_…`); several separated by commas "
        "while rotating. Unset in production: they are refused.",
    )
    resend_from_email: str = Field("noreply@yourapp.com", description="Sender's address.")
    resend_from_name: str = Field("OmoiOS", description="Sender's name.")
    smtp_url: SmtpUrl | None = Field(
        None, description="`smtp://` or `smtps://` provider, alone or as Resend's fail-over."
    )
    privacy_policy_url: str | None = Field(
        None, description="Privacy policy that every email links to; unset: no such link."
    )
    email_tracking: Literal["own", "provider", "off"] = Field(
        "own",
        description="Who notices opens and clicks of emails: our own pixel and links, the "
        "provider's (switched on there), or nobody.",
    )

    # Notifications
    notification_retention_days: Positive = Field(90, description="Days notifications are kept.")
    notification_archive: Literal["on", "off"] = Field(
        "on", description="`off` deletes old notifications without archiving them."
    )
    notification_max_batch_size: Positive = Field(
        10_000, description="Recipients one bulk call may have."
    )
    notification_queue_size: Positive = Field(
        100_000, description="Due, never attempted deliveries before creates answer 429."
    )

    # Limits
    rate_limit_push_per_hour: Positive = Field(10, description="Pushes per user and hour.")
    rate_limit_in_app_per_hour: Positive = Field(
        100, description="In-app notifications per user and hour."
    )
    rate_limit_email_per_day: Positive = Field(20, description="Emails per user and day.")
    rate_limit_global_per_minute: Positive = Field(
        10_000, description="Bulk recipients per minute, over all services."
    )

    # Digests
    digest_default_time: Annotated[
        str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="Local time of digests.")
    ] = "09:00"
    digest_default_day: Annotated[
        int, Field(ge=1, le=7, description="Day of weekly digests, 1 = Monday.")
    ] = 1
    digest_timezone: Annotated[str, AfterValidator(checked_timezone)] = Field(
        "UTC", description="IANA timezone of users who have none."
    )

    # Delivery
    delivery_lease_seconds: PositiveSeconds = Field(
        30, description="Seconds a worker owns what it claimed; must exceed a provider's timeout."
    )
    delivery_max_attempts: Positive = Field(
        10, description="Attempts before a delivery fails for good."
    )
    delivery_max_expired_leases: Positive = Field(
        5, description="Leases that may expire before a delivery counts as poison."
    )
    delivery_slots: Positive = Field(
        200,
        description="Deliveries of one channel that a worker sends at once; a fifth of them is kept"
        " for critical ones.",
    )
    provider_timeout_seconds: PositiveSeconds = Field(
        10, description="Seconds one provider request may take."
    )
    retry_base_seconds: PositiveSeconds = Field(
        1, description="First backoff; doubles with each attempt, with full jitter."
    )
    retry_cap_seconds: PositiveSeconds = Field(3600, description="Longest backoff.")
    sweep_interval_seconds: PositiveSeconds = Field(
        2, description="Longest sleep of a worker between two looks at what is due."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("jwt_jwks_url", "privacy_policy_url")
    @classmethod
    def _whole_url(cls, value: str | None) -> str | None:
        # A slash at its end belongs to it: redirects are not followed.
        if value is not None:
            cls._http_url(value)
        return value

    @field_validator("public_url", "fcm_api_url", "resend_api_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value and not value.startswith(("https://", "http://")):
            raise ValueError("must be an http:// or https:// address")
        return value.rstrip("/") if value else value

    @field_validator("fcm_api_url")
    @classmethod
    def _without_version(cls, value: str) -> str:
        if value.endswith("/v1"):
            raise ValueError("must be the base address; leave `/v1` out")
        return value

    @field_validator("vapid_subject")
    @classmethod
    def _contact(cls, value: str) -> str:
        if not value.startswith(("mailto:", "https:")):
            raise ValueError("must be a mailto: or https: address")
        return value

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if not self.is_development and (self.jwt_jwks_url or "").startswith("http://"):
            raise ValueError("JWT_JWKS_URL: production takes keys over https only")
        if self.delivery_lease_seconds <= self.provider_timeout_seconds:
            raise ValueError("DELIVERY_LEASE_SECONDS must exceed PROVIDER_TIMEOUT_SECONDS")
        if bool(self.vapid_public_key) != bool(self.vapid_private_key):
            raise ValueError("VAPID_PUBLIC_KEY and VAPID_PRIVATE_KEY must be set together")
        if self.app_env == "development":
            for name, host in (("API_HOST", self.api_host), ("WS_HOST", self.gateway_host)):
                if not is_loopback(host):
                    raise ValueError(
                        f"{name}: development binds loopback only; set APP_ENV=production"
                    )
        return self

    @property
    def is_development(self) -> bool:
        """Whether secrets are generated and the sandbox and the demo sign-in exist."""
        return self.app_env == "development"

    @property
    def gateway_host(self) -> str:
        """Address the gateway listens on."""
        return self.ws_host or ("127.0.0.1" if self.is_development else "0.0.0.0")  # noqa: S104 -- the requirements' own default

    @property
    def base_url(self) -> str:
        """Base of links that leave the system, without a trailing slash."""
        return self.public_url or f"http://{self.api_host}:{self.api_port}"

    @property
    def sandbox_url(self) -> str:
        """Address of the sandbox, whether or not it runs."""
        return f"http://127.0.0.1:{self.sandbox_port}"

    @property
    def uses_sandbox_mail(self) -> bool:
        """Whether email goes to the sandbox because no provider is configured."""
        return self.is_development and self.resend_api_key is None and self.smtp_url is None

    @property
    def email_configured(self) -> bool:
        """Whether anything can send email."""
        return self.uses_sandbox_mail or bool(self.resend_api_key or self.smtp_url)

    @property
    def uses_sandbox_fcm(self) -> bool:
        """Whether apps are reached through the sandbox because no account is configured."""
        return self.is_development and self.fcm_service_account is None

    @property
    def fcm_configured(self) -> bool:
        """Whether anything can push to apps."""
        return self.uses_sandbox_fcm or self.fcm_service_account is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is set and has no effect, in sentences for operators; nothing of it is shown."""
        if self.fcm_server_key is None or self.fcm_service_account is not None:
            return ()
        return (
            "FCM_SERVER_KEY: has no effect, since Google shut down its API in 2024; set "
            "FCM_SERVICE_ACCOUNT to the JSON of a service account's key, or its path",
        )

    @property
    def service_keys(self) -> tuple[str, ...]:
        """Accepted service keys, the current one first."""
        if self.internal_service_key is None:
            return ()
        return tuple(key.strip() for key in self.internal_service_key.get_secret_value().split(","))

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """Secrets that Resend's webhooks may be signed with."""
        if self.resend_webhook_secret is None:
            return ()
        return webhook_secrets_of(self.resend_webhook_secret.get_secret_value())

    @cached_property
    def encryption_keys(self) -> tuple[bytes, ...]:
        """AES keys of 32 bytes each; the first encrypts."""
        if self.notification_encryption_key is None:
            return ()
        return decoded_keys(self.notification_encryption_key.get_secret_value())

    @property
    def default_timezone(self) -> ZoneInfo:
        """Timezone of users who have none."""
        return ZoneInfo(self.digest_timezone)
