"""`[tool.lockstep.serving]`: how the feature service listens, waits, sheds and logs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, get_args

from lockstep.errors import ConfigError

NonFinite: TypeAlias = Literal["string", "null", "error"]

MAX_BODY: Final = 1024 * 1024
"""Bytes of a request's body."""
MAX_ENTITIES: Final = 1000
"""Entities of one request."""
MAX_FEATURES: Final = 200
"""Features of one request."""
MAX_HEADERS: Final = 16 * 1024
"""Bytes of a request's line and headers."""


@dataclass(frozen=True)
class ServingSettings:
    """The settings of `[tool.lockstep.serving]`; options of `lockstep serve` override them.

    Attributes:
        host: Address to listen on. Other than loopback it needs tokens.
        port: TCP port; 0 is any free one.
        workers: Processes that share the port.
        deadline_ms: What a request may wait for Redis, and in the queue, each.
        max_in_flight: Requests that are answered at the same time.
        max_queue: Requests that wait for their turn; beyond it they are shed.
        max_connections: Open connections; beyond it they are refused.
        read_seconds: How long headers, and how long a body, may take to arrive.
        idle_seconds: How long a connection may do nothing between two requests.
        drain_seconds: How long a stopping service finishes what it has begun.
        tokens: TOML file of token hashes (`LOCKSTEP_TOKENS` overrides); None asks for no token.
        non_finite: What NaN and infinities become in JSON: "string", "null" or "error".
        served_log_rate: Share of the entities whose served values are logged, 0 to 1.
        served_log_seconds: How often a file of the served-feature log is written.
    """

    host: str = "127.0.0.1"
    port: int = 6566
    workers: int = 1
    deadline_ms: int = 50
    max_in_flight: int = 16
    max_queue: int = 256
    max_connections: int = 2000
    read_seconds: float = 5.0
    idle_seconds: float = 60.0
    drain_seconds: float = 10.0
    tokens: str | None = None
    non_finite: NonFinite = "string"
    served_log_rate: float = 0.0
    served_log_seconds: float = 60.0

    def __post_init__(self) -> None:
        found = [problem for problem in self._problems() if problem]
        if found:
            raise ConfigError(
                "[tool.lockstep.serving] is wrong: " + "; ".join(found) + ".",
                fix="Correct it in pyproject.toml, or the option of `lockstep serve`.",
            )

    @classmethod
    def parse(cls, table: Mapping[str, Any], tokens: str | None, folder: Path) -> Self:
        """Return the settings of a `[tool.lockstep.serving]` table.

        Args:
            tokens: What `LOCKSTEP_TOKENS` says, if it is set; wins over the table.
            folder: What a relative path of the tokens' file is relative to.

        Raises:
            ConfigError: A setting is unknown or has an unusable value.
        """
        known = {field.name: field.type for field in fields(cls)}
        if unknown := sorted(table.keys() - known.keys()):
            raise ConfigError(
                f"[tool.lockstep.serving] has unknown settings: {unknown}.",
                expected=f"some of {sorted(known)}",
                fix="Correct the names.",
            )
        given = dict(table)
        if tokens:
            given["tokens"] = tokens
        if isinstance(given.get("tokens"), str):
            given["tokens"] = str((folder / given["tokens"]).absolute())
        return cls(**given)

    def overridden(self, **options: Any) -> Self:
        """Return the settings with those options that are not None in their place."""
        return replace(
            self, **{name: value for name, value in options.items() if value is not None}
        )

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @property
    def deadline(self) -> float:
        """What a request may wait for Redis, in seconds."""
        return self.deadline_ms / 1000

    def _problems(self) -> list[str | None]:
        at_least_one = ("workers", "deadline_ms", "max_in_flight", "max_connections")
        above_zero = ("read_seconds", "idle_seconds", "served_log_seconds")
        return [
            *(self._whole(name, 1) for name in at_least_one),
            *(self._whole(name, 0) for name in ("port", "max_queue")),
            *(self._number(name, above=0) for name in above_zero),
            self._number("drain_seconds", least=0),
            self._number("served_log_rate", least=0, most=1),
            *(self._text(name) for name in ("host", "tokens")),
            None
            if self.non_finite in get_args(NonFinite)
            else f"non_finite must be one of {list(get_args(NonFinite))}",
        ]

    def _text(self, name: str) -> str | None:
        value: Any = getattr(self, name)
        if (isinstance(value, str) and value) or (value is None and name == "tokens"):
            return None
        return f"{name} must be text, not {value!r}"

    def _whole(self, name: str, least: int) -> str | None:
        value: Any = getattr(self, name)
        if type(value) is int and value >= least:
            return None
        return f"{name} must be a whole number, at least {least}, not {value!r}"

    def _number(
        self, name: str, *, least: float = 0, above: float | None = None, most: float | None = None
    ) -> str | None:
        value: Any = getattr(self, name)
        if type(value) in {int, float}:
            high_enough = value >= least if above is None else value > above
            if high_enough and (most is None or value <= most):
                return None
        low = f"above {above}" if above is not None else f"at least {least}"
        return (
            f"{name} must be {low}{'' if most is None else f' and at most {most}'}, not {value!r}"
        )


def is_loopback(host: str) -> bool:
    """Return whether the host name or address is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
