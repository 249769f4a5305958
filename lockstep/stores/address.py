"""Where an online store is, how to greet it, and what went wrong with it, without its password."""

import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import hiredis

from lockstep.errors import ConfigError, OnlineError
from lockstep.stores.deadline import Deadline
from lockstep.stores.resp import Reply, command

_DEFAULT_PORT: Final = 6379
_NO: Final = frozenset({"", "0", "f", "false", "n", "no"})
_CERTIFICATES: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_OPTIONS: Final = frozenset(
    {
        "db",
        "username",
        "password",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_check_hostname",
        "ssl_keyfile",
        "ssl_password",
    }
)
_NOT_ALLOWED: Final = ("NOAUTH", "NOPERM", "WRONGPASS")
_NOTHING: Final = "Nothing was fetched."


@dataclass(frozen=True)
class Address:
    """One server, or any node of a cluster, and what its URL says about talking to it.

    Attributes:
        path: Of its Unix socket; then host and port mean nothing.
        tls: The `ssl_…` options of the URL; None without TLS.
        security: What TLS is made of; None without TLS.
    """

    host: str = "localhost"
    port: int = _DEFAULT_PORT
    path: str | None = None
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Mapping[str, str] | None = field(default=None, repr=False, compare=False)
    security: ssl.SSLContext | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """The address in `redis://`, `rediss://` (TLS) or `unix://`, as redis-py reads it.

        With TLS, certificates and host names are verified unless its options say otherwise.

        Raises:
            ConfigError: It cannot be read (the text is not shown, it may hold a password), or names
                a certificate or key file that cannot.
        """
        try:
            parts = urlsplit(url)
            options = dict(parse_qsl(parts.query, keep_blank_values=True))
            if parts.scheme not in {"redis", "rediss", "unix"} or options.keys() - _OPTIONS:
                raise ValueError(parts.scheme)  # noqa: TRY301 - one message for whatever is wrong
            path = unquote(parts.path)
            unix = parts.scheme == "unix"
            database = options.get("db") or ("" if unix else path.strip("/")) or "0"
            found = cls(
                host=unquote(parts.hostname or "localhost"),
                port=parts.port or _DEFAULT_PORT,
                path=path if unix else None,
                database=int(database),
                user=unquote(parts.username or "") or options.get("username") or None,
                password=unquote(parts.password or "") or options.get("password") or None,
            )
        except ValueError:  # its text may quote a part of the password: it is not even a context
            found = None
        if found is None:
            raise ConfigError(
                "The online store's URL cannot be read (not shown: it may hold a password).",
                expected="redis://[user:password@]host:port/db, rediss://… or unix:///path; in its "
                "query db, username, password or ssl_…",
                fix="Percent-encode special characters in the password.",
            )
        if parts.scheme != "rediss":
            return found
        return replace(found, tls=options, security=_security(options, found.place))

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.path or f'{self.host}:{self.port}'}/{self.database}"

    def node(self, host: str, port: int) -> Self:
        """Another node of the cluster, to be talked to in the same way."""
        return replace(self, host=host, port=port, path=None)

    @property
    def greeting(self) -> tuple[bytes, int]:
        """Packed commands for a new connection, and how many answers they have."""
        words = [b"HELLO", b"2"]
        if self.user is not None or self.password is not None:
            user, password = self.user or "default", self.password or ""
            words += [b"AUTH", user.encode(), password.encode()]
        words += [b"SETNAME", b"lockstep"]
        packed = command(*words)
        if not self.database:
            return packed, 1
        return packed + command(b"SELECT", b"%d" % self.database), 2

    def welcomed(self, replies: Sequence[Reply]) -> bool:
        """Whether the server that gave those answers to the greeting is part of a cluster.

        Raises:
            OnlineError: It refused.
        """
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise self.refused(str(reply))
        facts = dict(zip(replies[0][::2], replies[0][1::2], strict=False))
        return bool(facts.get(b"mode") == b"cluster")

    def late(self, seconds: float) -> OnlineError:
        """It did not answer within the deadline."""
        return OnlineError(
            f"{self._where} did not answer within {seconds * 1000:g} ms.",
            fix="See whether it is overloaded, paused or unreachable.",
            effect=_NOTHING,
        )

    def unusable(self, error: Exception) -> OnlineError:
        """It cannot be reached, or broke off."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return OnlineError(
                f"{self._where} has a certificate that cannot be verified: "
                f"{error.verify_message.rstrip('.')}.",
                fix="Name its authority (rediss://…?ssl_ca_certs=FILE) and the host it is for.",
                effect=_NOTHING,
            )
        named = isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno
        said = self._without_password(os.strerror(named) if named else str(error))
        return OnlineError(
            f"{self._where} cannot be used: {said.rstrip('.') or type(error).__name__}.",
            fix="Start it (`lockstep up` starts the embedded one), or correct its URL.",
            effect=_NOTHING,
        )

    def refused(self, text: str) -> OnlineError:
        """It answered with an error."""
        said = self._without_password(text).rstrip(".")
        if text.startswith(_NOT_ALLOWED):
            return OnlineError(
                f"{self._where} does not allow this user to do that: {said}.",
                fix="Check user and password in the URL, and the user's ACL.",
                effect=_NOTHING,
            )
        return OnlineError(
            f"{self._where} refused a command: {said}.",
            fix="Lockstep needs Redis 7 or later, or Valkey.",
            effect=_NOTHING,
        )

    @property
    def _where(self) -> str:
        return f"The online store at {self.place}"

    def _without_password(self, text: str) -> str:
        return text.replace(self.password, "***") if self.password else text


def _security(said: Mapping[str, str], place: str) -> ssl.SSLContext:
    """What TLS is made of, by the `ssl_…` options of a URL.

    Raises:
        ConfigError: A certificate or key file cannot be read.
    """
    try:
        context = ssl.create_default_context(
            cafile=said.get("ssl_ca_certs"), capath=said.get("ssl_ca_path")
        )
        needed = _CERTIFICATES[said.get("ssl_cert_reqs", "required")]
        named = said.get("ssl_check_hostname", "true").lower() not in _NO
        context.check_hostname = named and needed == ssl.CERT_REQUIRED
        context.verify_mode = needed
        if certificate := said.get("ssl_certfile"):
            # Without a password OpenSSL would ask the terminal for one, and wait.
            secret = said.get("ssl_password", "")
            context.load_cert_chain(certificate, said.get("ssl_keyfile"), secret)
    except (OSError, KeyError) as error:
        raise ConfigError(
            f"The TLS options of the online store at {place} cannot be used: "
            f"{type(error).__name__}, {getattr(error, 'strerror', None) or error}.",
            expected="readable PEM files, and ssl_cert_reqs=required, optional or none",
            fix="Correct ssl_ca_certs, ssl_certfile and ssl_keyfile in the URL.",
        ) from None
    return context


def told(error: Exception, address: Address, deadline: Deadline) -> OnlineError:
    """What went wrong, in our words. Not to be chained: the original may name what is secret."""
    if isinstance(error, OnlineError):
        return error
    if isinstance(error, TimeoutError):
        return address.late(deadline.seconds)
    return address.unusable(error)
