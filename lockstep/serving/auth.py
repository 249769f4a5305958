"""Bearer tokens: kept as SHA-256, scoped to views, with PII and metrics apart.

    [tokens.churn_model]
    sha256 = "9f86d081…"
    scopes = ["view:txn_7d", "pii"]
    expires = 2027-01-01T00:00:00Z

The file never holds a token. Who may read it can impersonate nobody: a token has 256 random bits.
"""

import hashlib
import hmac
import os
import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lockstep.errors import ConfigError
from lockstep.schema import NAME
from lockstep.view import FeatureView

EVERY_VIEW: Final = "view:*"
PII: Final = "pii"
METRICS: Final = "metrics"
_SCOPE: Final = re.compile(r"view:(\*|[a-z][a-z0-9_]{0,62})|pii|metrics")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = "lst_"


@dataclass(frozen=True)
class Caller:
    """Who asks, and what that allows.

    Attributes:
        name: Name of the token; "anonymous" where none is asked for.
        scopes: `view:<name>`, `view:*`, `pii`, `metrics`.
        expires: From when the token is refused (UTC); None is never.
    """

    name: str
    scopes: frozenset[str]
    expires: datetime | None = None

    @property
    def sees_everything(self) -> bool:
        """Whether it may know of every view."""
        return EVERY_VIEW in self.scopes

    def may_see(self, view: str) -> bool:
        """Whether it may read features of the view that are not PII."""
        return EVERY_VIEW in self.scopes or f"view:{view}" in self.scopes

    def refusal(self, views: Iterable[FeatureView], *, pii: bool) -> str | None:
        """Say which scopes it lacks for the views; None if it lacks none.

        Args:
            pii: Whether features that identify a person are among what is asked for.
        """
        lacking = [f"view:{view.name}" for view in views if not self.may_see(view.name)]
        if pii and PII not in self.scopes:
            lacking.append(PII)
        return ", ".join(lacking) or None


OPEN: Final = Caller("anonymous", frozenset({EVERY_VIEW, PII, METRICS}))
"""Anybody on this machine, where no tokens are configured."""
OPEN_TO_OTHERS: Final = Caller("anonymous", frozenset({EVERY_VIEW, METRICS}))
"""Anybody anywhere, by `--insecure`: PII still needs a token."""


class Tokens:
    """The tokens of one file; a changed file counts from the next `refresh`.

    Raises:
        ConfigError: The file cannot be read or is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._stamp = self._stamp_now()
        self._callers = read_tokens(path)

    def caller(self, authorization: bytes | None, now: datetime) -> Caller | None:
        """Return whose token an Authorization header carries; None for none, wrong or expired.

        Every hash is compared in full whatever the header says, so that time tells nothing.
        """
        scheme, _, token = (authorization or b"").partition(b" ")
        digest = hashlib.sha256(token.strip()).hexdigest()
        found = None
        for kept, caller in self._callers.items():
            if hmac.compare_digest(kept, digest):
                found = caller
        if found is None or scheme.lower() != b"bearer":
            return None
        return None if found.expires is not None and found.expires <= now else found

    def refresh(self) -> bool:
        """Read the file again if it changed; return whether it did.

        Raises:
            ConfigError: It cannot be read or is wrong; the tokens read before still count.
        """
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._callers = read_tokens(self.path)
        return True

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino


def read_tokens(path: Path) -> dict[str, Caller]:
    """Return SHA-256 in hex → caller.

    Raises:
        ConfigError: The file cannot be read, is no TOML, or an entry is wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"The tokens' file {path} cannot be read.",
            got=type(error).__name__,
            fix="Correct tokens in [tool.lockstep.serving] (LOCKSTEP_TOKENS), or write a token "
            "with `lockstep token create`.",
        ) from None
    entries = document.get("tokens", {})
    if not isinstance(entries, dict) or document.keys() - {"tokens"}:
        raise _wrong(path, "it holds something other than [tokens.<name>] tables")
    found: dict[str, Caller] = {}
    for name, entry in entries.items():
        digest, caller = _entry(path, name, entry)
        if digest in found:
            raise _wrong(path, f"{name!r} has the token of {found[digest].name!r}")
        found[digest] = caller
    return found


def _entry(path: Path, name: str, entry: Any) -> tuple[str, Caller]:
    if not isinstance(entry, Mapping) or entry.keys() - {"sha256", "scopes", "expires"}:
        raise _wrong(path, f"{name!r} has keys other than sha256, scopes and expires")
    digest, scopes, expires = entry.get("sha256"), entry.get("scopes"), entry.get("expires")
    if not (isinstance(digest, str) and _HASH.fullmatch(digest)):
        raise _wrong(path, f"{name!r} has no SHA-256 in hex as sha256")
    if not isinstance(scopes, list) or not all(_is_scope(scope) for scope in scopes):
        raise _wrong(path, f"the scopes of {name!r} are not view:<name>, view:*, pii or metrics")
    if expires is not None and not (isinstance(expires, datetime) and expires.tzinfo):
        raise _wrong(path, f"expires of {name!r} is no timestamp with a zone")
    return digest, Caller(name, frozenset(scopes), expires)


def _is_scope(scope: object) -> bool:
    return isinstance(scope, str) and _SCOPE.fullmatch(scope) is not None


def _wrong(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"The tokens' file {path} is wrong: {problem}.", fix="Correct it, or create the token anew."
    )


def create_token(
    path: Path, name: str, scopes: Iterable[str], expires: datetime | None = None
) -> str:
    """Add a token to the file and return it; nothing but its hash is kept.

    The file is created if it is missing, for its owner only.

    Raises:
        ConfigError: The name is taken or unusable, a scope is unknown, or the file is wrong.
    """
    wanted = sorted(set(scopes))
    taken = {caller.name for caller in read_tokens(path).values()} if path.exists() else set()
    problems = [
        None if NAME.match(name) else f"the name {name!r} is not lower-case letters, digits and _",
        f"there is a token named {name!r} already" if name in taken else None,
        None if wanted else "it would have no scope",
        *(f"{scope!r} is no scope" for scope in wanted if not _is_scope(scope)),
        "expires has no zone" if expires is not None and expires.tzinfo is None else None,
    ]
    if found := [problem for problem in problems if problem]:
        raise ConfigError(
            f"The token cannot be created: {'; '.join(found)}.",
            fix="Correct the name, the --view options or --expires.",
            effect="Nothing was written.",
        )
    token = _PREFIX + secrets.token_urlsafe(32)
    lines = [
        f"\n[tokens.{name}]",
        f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"',
        "scopes = [" + ", ".join(f'"{scope}"' for scope in wanted) + "]",
    ]
    if expires is not None:
        lines.append(f"expires = {expires.astimezone(UTC).isoformat().replace('+00:00', 'Z')}")
    _append(path, "\n".join(lines).lstrip("\n") + "\n")
    return token


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(before + ("\n" if before else "") + text)
    temporary.replace(path)
