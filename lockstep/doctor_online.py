"""The doctor's questions to the online store, asked of every master."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from lockstep.advice import Advice, Level, ok
from lockstep.calls import shipped_library
from lockstep.errors import OnlineError
from lockstep.layout import pairs
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import LISTPACK_VALUE
from lockstep.view import FeatureView

SKEW: Final = timedelta(seconds=2)
_OLDEST: Final = 7
_NEARLY_FULL: Final = 0.9
_FILLING: Final = 0.75
_LISTPACK_ENTRIES: Final = "hash-max-listpack-entries"
_LISTPACK_VALUE: Final = "hash-max-listpack-value"
_PREFIX: Final = "lockstep_v1_"


def examine_online(
    online: OnlineStore,
    url: str,
    views: Sequence[FeatureView],
    *,
    now: Callable[[], datetime],
) -> Iterator[Advice]:
    """Yield what is to be said of the servers, of the connection to them, and of what they hold.

    Args:
        url: Where the store is, for what it says about TLS and the user; it is never shown.
        now: The clock that is compared with theirs.
    """
    try:
        facts = {name: _texts(info) for name, info in online.ask("INFO").items()}
    except OnlineError as error:
        yield Advice("online-reachable", "broken", error.culprit, error.fix or "")
        return
    yield ok("online-reachable", f"{online.address} answers ({', '.join(facts)}).")
    yield from _connection(online, url)
    for name, info in facts.items():
        yield from _server(name, info)
    yield from _configuration(online, facts, views)
    yield from _functions(online)
    yield from _clocks(online, now)
    yield from _contents(online, views)


def _server(name: str, info: Mapping[str, str]) -> Iterator[Advice]:
    version = info.get("redis_version", "0")
    engine = f"{info.get('server_name', 'redis')} at {name}"
    if int(version.partition(".")[0]) < _OLDEST:
        yield Advice(
            "server-version",
            "broken",
            f"{engine} speaks Redis {version}, which has no functions.",
            "Install Redis 7 or later, or Valkey.",
        )
    else:
        yield ok("server-version", f"{engine} speaks Redis {version}.")
    yield _policy(name, info)
    yield _headroom(name, info)
    yield _persistence(name, info)


def _policy(name: str, info: Mapping[str, str]) -> Advice:
    policy, limited = info.get("maxmemory_policy", "unknown"), int(info.get("maxmemory", 0)) > 0
    evicted = int(info.get("evicted_keys", 0))
    if policy == "noeviction":
        return ok("eviction-policy", f"{name} refuses writes when it is full, and drops nothing.")
    dropped = f" It has dropped {evicted} keys since it started." if evicted else ""
    return Advice(
        "eviction-policy",
        "broken" if limited else "advice",
        f"{name} would drop rows when it is full: maxmemory-policy is {policy}.{dropped}",
        "CONFIG SET maxmemory-policy noeviction, and in its configuration file; then: "
        "lockstep reconcile",
    )


def _headroom(name: str, info: Mapping[str, str]) -> Advice:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    has = f"{name} uses {_size(used)}"
    if not limit:
        return ok("memory-headroom", f"{has}, and has no limit of its own.")
    level: Level = (
        "broken" if used >= limit * _NEARLY_FULL else "advice" if used >= limit * _FILLING else "ok"
    )
    fix = "" if level == "ok" else "Raise maxmemory before pushes are refused, or remove views."
    return Advice("memory-headroom", level, f"{has} of {_size(limit)}.", fix)


def _persistence(name: str, info: Mapping[str, str]) -> Advice:
    for what in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if info.get(what, "ok") != "ok":
            return Advice(
                "persistence",
                "broken",
                f"{name} could not write to its disk ({what} is {info[what]}).",
                "Look at its log and at the free space of its disk.",
            )
    if info.get("aof_enabled") == "1":
        return ok("persistence", f"{name} keeps an append-only file.")
    return Advice(
        "persistence",
        "advice",
        f"{name} keeps no append-only file: after a restart it has lost what came last, and its "
        "views are not ready until they are rebuilt.",
        "CONFIG SET appendonly yes, and in its configuration file.",
    )


def _connection(online: OnlineStore, url: str) -> Iterator[Advice]:
    parts = urlsplit(url)
    far = parts.scheme != "unix" and not _loopback(parts.hostname or "localhost")
    if far and not online.encrypted:
        yield Advice(
            "tls",
            "broken",
            "The connection leaves this machine without encryption.",
            "Switch TLS on in the server and use rediss:// in redis_url.",
        )
    else:
        yield ok("tls", "Encrypted." if online.encrypted else "Not needed: it stays on loopback.")
    try:
        user = sorted({_text(name) for name in online.ask("ACL", "WHOAMI").values()})
    except OnlineError:
        yield _not_allowed("acl-user", "ACL WHOAMI")
        return
    if user == ["default"] and not parts.password:
        yield Advice(
            "acl-user",
            "broken" if far else "ok",
            "Anybody who reaches the server may do everything: user default, no password.",
            "Give it users by role, see deploy/redis, and put one into redis_url." if far else "",
        )
    else:
        yield ok("acl-user", f"Connected as {', '.join(user)}.")


def _configuration(
    online: OnlineStore, facts: Mapping[str, Mapping[str, str]], views: Iterable[FeatureView]
) -> Iterator[Advice]:
    try:
        settings = {
            name: _texts(answer) for name, answer in online.ask("CONFIG", "GET", "*").items()
        }
    except OnlineError:
        for code in ("listpack", "replica-acknowledgement"):
            yield _not_allowed(code, "CONFIG GET")
        return
    count: dict[str, int] = {}
    for view in views:
        count[view.contract.entity.name] = count.get(view.contract.entity.name, 0) + 1
    for name, found in settings.items():
        yield _listpack(name, found, max(count.values(), default=0))
        replicas = int(facts[name].get("connected_slaves", 0))
        if replicas and found.get("min-replicas-to-write", "0") == "0":
            yield Advice(
                "replica-acknowledgement",
                "advice",
                f"{name} takes writes while none of its {replicas} replicas follows: a failover "
                "then rolls views back.",
                "CONFIG SET min-replicas-to-write 1",
            )


def _listpack(name: str, found: Mapping[str, str], fields: int) -> Advice:
    value = int(found.get(_LISTPACK_VALUE, 0))
    entries = int(found.get(_LISTPACK_ENTRIES, 0))
    if value >= LISTPACK_VALUE and entries >= fields:
        return ok("listpack", f"{name} keeps small hashes compact.")
    return Advice(
        "listpack",
        "advice",
        f"{name} keeps hashes compact up to {entries} fields of {value} bytes: rows take more "
        "memory than they need.",
        f"CONFIG SET {_LISTPACK_VALUE} {LISTPACK_VALUE} and {_LISTPACK_ENTRIES} "
        f"{max(512, entries, fields)}; rows are stored anew by: lockstep push --rebuild",
    )


def _functions(online: OnlineStore) -> Iterator[Advice]:
    library = shipped_library().name
    try:
        loaded = {name: _libraries(found) for name, found in online.ask("FUNCTION", "LIST").items()}
    except OnlineError:
        yield _not_allowed("function-library", "FUNCTION LIST")
        return
    lacking = [name for name, found in loaded.items() if library not in found]
    if lacking:
        yield Advice(
            "function-library",
            "advice",
            f"The functions of this release are not loaded on {', '.join(lacking)}.",
            "The next push loads them, if its user may; else let an admin run: lockstep up",
        )
    else:
        yield ok("function-library", f"{library} is loaded.")
    old = sorted({name for found in loaded.values() for name in found} - {library})
    if ours := [name for name in old if name.startswith(_PREFIX)]:
        yield Advice(
            "function-leftovers",
            "advice",
            f"Functions of other releases are loaded: {', '.join(ours)}.",
            f"Once nobody runs those releases: FUNCTION DELETE {ours[0]}",
        )


def _clocks(online: OnlineStore, now: Callable[[], datetime]) -> Iterator[Advice]:
    before = now()
    try:
        times = online.ask("TIME")
    except OnlineError:
        yield _not_allowed("clock-skew", "TIME")
        return
    took = now() - before
    for name, (seconds, microseconds) in times.items():
        there = timedelta(seconds=int(seconds), microseconds=int(microseconds))
        skew = there - timedelta(seconds=(before + took / 2).timestamp())
        apart = abs(skew) - took / 2
        if apart > SKEW:
            ahead = "ahead of" if skew > timedelta(0) else "behind"
            yield Advice(
                "clock-skew",
                "broken",
                f"The clock of {name} is {apart.total_seconds():.1f} s {ahead} this machine's.",
                "Let both follow NTP: what has expired is decided by the reader's clock, what is "
                "deleted by the server's.",
            )
        else:
            yield ok("clock-skew", f"The clock of {name} agrees with this machine's.")


def _contents(online: OnlineStore, views: Sequence[FeatureView]) -> Iterator[Advice]:
    try:
        marks = online.notes("unready")
    except OnlineError as error:
        yield Advice("not-ready", "unknown", error.culprit)
        return
    unready = [view.name for view in views if view.name in marks]
    if unready:
        yield Advice(
            "not-ready",
            "broken",
            f"Marked not ready: {', '.join(unready)}.",
            "Run: lockstep reconcile",
        )
    else:
        yield ok("not-ready", "No view is marked not ready.")
    gone = sorted(marks.keys() - {view.name for view in views})
    if gone:
        yield Advice(
            "removed-views",
            "advice",
            f"Marks of views that are not declared any more: {', '.join(gone)}.",
            "They harm nobody. To remove them: lockstep sweep",
        )
    try:
        yield from _buckets(online, views)
    except OnlineError as error:
        yield Advice("buckets", "broken", error.culprit, error.fix or "")
    unreadable = []
    for view in views:
        entity = view.contract.entity
        try:
            online.seals(entity.name, view.name, entity.buckets)
        except OnlineError as error:
            if "seal" not in error.culprit:
                yield Advice("seals", "unknown", error.culprit)
                return
            unreadable.append(view.name)
    if unreadable:
        yield Advice(
            "seals",
            "broken",
            f"Seals that this release cannot read: {', '.join(unreadable)}.",
            "If a newer release wrote them, upgrade this one; else: lockstep reconcile",
        )
    else:
        yield ok("seals", "Every seal can be read.")


def _buckets(online: OnlineStore, views: Iterable[FeatureView]) -> Iterator[Advice]:
    declared = {view.contract.entity.name: view.contract.entity.buckets for view in views}
    other = {}
    for name, buckets in declared.items():
        known = online.declared_buckets(name)
        if known not in {None, buckets}:
            other[name] = known
    if not other:
        yield ok("buckets", "Every entity has the number of buckets that is declared.")
    for name, found in other.items():
        yield Advice(
            "buckets",
            "broken",
            f"{name} has {found} buckets online and {declared[name]} declared.",
            f"Declare buckets={found}, or set another namespace and push everything again.",
        )


def _not_allowed(code: str, command: str) -> Advice:
    return Advice(
        code,
        "unknown",
        f"This user may not ask ({command} is not in its ACL).",
        "Run lockstep doctor as an admin.",
    )


def _loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _libraries(found: Any) -> list[str]:
    """Names in an answer of FUNCTION LIST: a list of flat lists, or of mappings."""
    return [_texts(library)["library_name"] for library in found]


def _texts(answer: Any) -> dict[str, str]:
    """An answer of pairs as texts, whether a mapping or a flat list."""
    if not isinstance(answer, Mapping):
        answer = pairs(answer)
    return {_text(key): _text(value) for key, value in answer.items()}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
