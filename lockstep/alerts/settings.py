"""`[tool.lockstep.alerts]`: who is told of what, where, and after how long again.

    [tool.lockstep.alerts]
    owner = "team:platform"
    runbooks = "https://wiki.example.com/runbooks"

    [tool.lockstep.alerts.receivers.growth]
    type = "slack"
    url_env = "GROWTH_SLACK_URL"
    owners = ["team:growth"]
    min_severity = "ticket"

A secret is the value of the environment variable that a setting ending in `_env` names. It never
stands in the file, and no message, log or error shows it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from email.errors import HeaderParseError, InvalidHeaderDefect
from email.policy import SMTP
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from lockstep.alerts.problem import RUNBOOKS, Problem, Severity
from lockstep.errors import ConfigError

Type: TypeAlias = Literal["webhook", "slack", "alertmanager", "email"]
Tls: TypeAlias = Literal["starttls", "tls", "none"]

TABLE: Final = "[tool.lockstep.alerts]"
EVERYBODY: Final = "*"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCAL: Final = re.compile(r"[A-Za-z0-9._+-]+")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_HTTP: Final = frozenset({"url", "url_env", "token_env"})
_MAIL: Final = frozenset({"host", "port", "tls", "sender", "to", "user_env", "password_env"})
_ALL: Final = frozenset({"type", "owners", "min_severity", "timeout_seconds", "remind_after_hours"})


@dataclass(frozen=True)
class Receiver:
    """One place that problems are told to.

    Attributes:
        type: The form of what is sent.
        owners: Whose problems; `*` is everybody's.
        min_severity: "ticket" takes everything, "page" only what wakes somebody.
        timeout_seconds: How long one message may take in all.
        remind_after_hours: After how long a problem that goes on is told again.
        url: An address without anything secret in it.
        url_env: The variable that holds the address, if it is a secret.
        token_env: The variable that holds a bearer token.
        host: The mail server, with `port` (587; 465 with `tls = "tls"`).
        tls: "starttls", "tls" from the first byte, or "none".
        sender: The address that mail comes from.
        to: The addresses that it goes to.
        user_env: The variable that holds the mail server's user, with `password_env`.
    """

    name: str
    type: Type
    owners: Sequence[str] = (EVERYBODY,)
    min_severity: Severity = "ticket"
    timeout_seconds: float = 10.0
    remind_after_hours: float = 24.0
    url: str | None = None
    url_env: str | None = None
    token_env: str | None = None
    host: str | None = None
    port: int | None = None
    tls: Tls = "starttls"
    sender: str | None = None
    to: Sequence[str] = ()
    user_env: str | None = None
    password_env: str | None = None

    def takes(self, found: Problem) -> bool:
        """Whether it is told of the problem."""
        whose = EVERYBODY in self.owners or found.owner in self.owners
        return whose and (self.min_severity == "ticket" or found.severity == "page")

    @property
    def remind_after(self) -> timedelta:
        """After how long a problem that goes on is told again."""
        return timedelta(hours=self.remind_after_hours)


@dataclass(frozen=True)
class AlertSettings:
    """The settings of `[tool.lockstep.alerts]`.

    Attributes:
        owner: Who answers for what has no owner, such as the online store.
        runbooks: Before the name of a runbook's page: a folder of the project, or an address.
    """

    receivers: Sequence[Receiver] = ()
    owner: str = "team:platform"
    runbooks: str = RUNBOOKS


def parse_alerts(table: Mapping[str, Any]) -> AlertSettings:
    """Return the settings of a table.

    Raises:
        ConfigError: Something in it is unknown, missing or wrong; all problems at once.
    """
    problems = _unknown("", table, {"receivers", "owner", "runbooks"})
    problems += [
        f"{name} must be text"
        for name in ("owner", "runbooks")
        if name in table and not _is_text(table[name])
    ]
    listed = table.get("receivers", {})
    if not isinstance(listed, Mapping):
        problems.append("receivers must be tables, [tool.lockstep.alerts.receivers.<name>]")
        listed = {}
    for name, given in listed.items():
        problems += _problems_of(str(name), given)
    if problems:
        raise ConfigError(
            f"{TABLE} is wrong: {'; '.join(problems)}.",
            fix="Correct it in pyproject.toml; docs/how-to-alerts.md lists the settings.",
            effect="Nobody was told of anything.",
        )
    return AlertSettings(
        tuple(_receiver(str(name), given) for name, given in listed.items()),
        str(table.get("owner", AlertSettings.owner)),
        str(table.get("runbooks", RUNBOOKS)),
    )


def _receiver(name: str, given: Mapping[str, Any]) -> Receiver:
    # Alertmanager forgets what it is not told again, so it is told every few minutes.
    again = {"remind_after_hours": 0.1} if given["type"] == "alertmanager" else {}
    return Receiver(name=name, **{**again, **given})


def _problems_of(name: str, given: Any) -> list[str]:
    if not _NAME.fullmatch(name):
        return [f"the receiver's name {name!r} must be lower-case letters, digits, underscores"]
    if not isinstance(given, Mapping) or given.get("type") not in get_args(Type):
        return [f"{name} needs a type out of {', '.join(get_args(Type))}"]
    mail = given["type"] == "email"
    found = _unknown(f"{name}: ", given, _ALL | (_MAIL if mail else _HTTP))
    found += [f"{name}: {said}" for said in _wrong(given)]
    found += [f"{name}: {said}" for said in (_mail(given) if mail else _http(given))]
    return found


def _unknown(of: str, given: Mapping[str, Any], known: "set[str] | frozenset[str]") -> list[str]:
    return [
        f"{of}there is no setting {name!r}, but {', '.join(sorted(known))}"
        for name in sorted(given.keys() - known)
    ]


def _wrong(given: Mapping[str, Any]) -> list[str]:
    names = {field.name for field in fields(Receiver)}
    found = [
        f"{name} must name an environment variable"
        for name, value in given.items()
        if name in names and name.endswith("_env") and not _is_variable(value)
    ]
    found += [
        f"{name} must be a list of text"
        for name in ("owners", "to")
        if name in given and not _is_list(given[name])
    ]
    found += [
        f"{name} must be a number above 0"
        for name in ("timeout_seconds", "remind_after_hours")
        if name in given and not _is_positive(given[name])
    ]
    if given.get("min_severity", "page") not in get_args(Severity):
        found.append(f"min_severity must be one of {', '.join(get_args(Severity))}")
    return found


def _http(given: Mapping[str, Any]) -> list[str]:
    if given["type"] == "slack" and "url" in given:
        return ["the address of a Slack webhook is a secret: name a variable in url_env instead"]
    if ("url" in given) == ("url_env" in given):
        return ["exactly one of url and url_env is needed"]
    return [] if "url" not in given else _url_problems(given["url"])


def _url_problems(url: Any) -> list[str]:
    try:
        parts = urlsplit(url) if _is_text(url) else None
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        return ["url must begin with http:// or https://"]
    if parts.username or parts.password or parts.query or parts.fragment:
        return ["url holds something that may be a secret: name a variable in url_env instead"]
    return []


def _mail(given: Mapping[str, Any]) -> list[str]:
    found = [f"{name} is missing" for name in ("host", "sender", "to") if not given.get(name)]
    found += [
        f"{name} must be text of one line"
        for name in ("host", "sender")
        if name in given and not _is_text(given[name])
    ]
    listed = given["to"] if _is_list(given.get("to")) else []
    found += [
        f"{name} holds {value!r}, which is no address of mail"
        for name, value in (("sender", given.get("sender")), *(("to", each) for each in listed))
        if _is_text(value) and not _is_address(value)
    ]
    port = given.get("port", 587)
    if type(port) is not int or port not in range(1, 65536):
        found.append("port must be a number from 1 to 65535")
    if given.get("tls", "starttls") not in get_args(Tls):
        found.append(f"tls must be one of {', '.join(get_args(Tls))}")
    if ("user_env" in given) != ("password_env" in given):
        found.append("user_env and password_env belong together")
    if given.get("tls") == "none" and "password_env" in given:
        found.append("a password is not sent without TLS")
    return found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _is_address(value: str) -> bool:
    """Whether the mail library reads one or several addresses, as it will when it sends."""
    if _LOCAL.fullmatch(value):  # a mailbox of the mail server's own, such as root
        return True
    try:
        header = SMTP.header_factory("To", value)
    except (IndexError, HeaderParseError):  # it does not expect half a quotation
        return False
    wrong = [each for each in header.defects if isinstance(each, InvalidHeaderDefect)]
    return bool(header.addresses) and not wrong


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _is_variable(value: Any) -> bool:
    return isinstance(value, str) and _VARIABLE.fullmatch(value) is not None


def _is_positive(value: Any) -> bool:
    return type(value) in {int, float} and value > 0
