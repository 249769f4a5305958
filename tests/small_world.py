"""The scenario's smallest view, built and pushed: for tests of the way to the online store."""

from datetime import timedelta
from pathlib import Path

from tests.scenario import START, World, instant, world

USERS = list(range(1, 31))
FEATURE = "profile:country"


def small_world(folder: Path, url: str, *, namespace: str | None = None) -> World:
    """Return a world whose view `profile` has a row for every user, online as well."""
    made = built_world(folder, url, namespace=namespace)
    made.push(made.views.profile)
    return made


def built_world(folder: Path, url: str, *, namespace: str | None = None) -> World:
    """Return the same world with nothing pushed yet."""
    made = world(folder, redis_url=url, namespace=namespace)
    people = [{"user_id": user, "country": f"C{user}"} for user in USERS]
    made.land("people", people, "people.parquet")
    made.clock.now = instant(START + timedelta(days=1), 3)
    made.ingest_people()
    made.build(made.views.profile, START)
    return made


def asked_of(users: list[int]) -> tuple[list[str], dict[str, list[int]]]:
    """Return what to ask a client for."""
    return [FEATURE], {"user_id": users}
