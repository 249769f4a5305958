"""Erasure: the value is nowhere, everybody else is as before, and it does not come back."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import redis
from typer.testing import CliRunner, Result

from lockstep import Entity
from lockstep.cli import app
from lockstep.erasure.erase import Places, find, forget
from lockstep.erasure.forgetting import Forgetting, forgetting
from lockstep.errors import ConflictError
from lockstep.garbage import collect_garbage
from lockstep.hashing import content_hash
from lockstep.keys import encode_key
from lockstep.push import push
from lockstep.quarantine import Quarantine, Quarantined
from lockstep.stores.redis import OnlineStore
from lockstep.stores.server import EmbeddedServer
from lockstep.stores.tables import existing_table
from lockstep.throttle import paced
from tests.source_tree import ROOT
from tests.tiny_files import write_files
from tests.tiny_project import (
    CUSTOMERS,
    DAYS,
    LAST,
    NOW,
    VIEW_DAYS,
    TinyProject,
    enter,
    orders,
)

CANARY = "~canary-4711"  # sorts last: the greatest value of its column in every file
BOUGHT = DAYS[:4]
EMAIL = "canary-4711@example.com"
VIEWS = ("spend_2d", "orders_1d", "contact")


@dataclass
class Shop:
    """A project in which somebody bought every day who wants to be forgotten."""

    project: TinyProject
    server: EmbeddedServer

    @property
    def root(self) -> Path:
        return Path(self.project.store.project.root)

    @property
    def whom(self) -> Forgetting:
        entities = self.project.store.catalog.entities
        return forgetting(entities["customer"], {"customer": CANARY}, entities)

    def places(self, *, landing: bool = False) -> Places:
        store = self.project.store
        return Places(store.lake, store.catalog, store.online_store, store.now, paced, landing)

    def rows(self) -> dict[str, list[Any]]:
        """Every row of the others, of every source, snapshot and view."""
        store, found = self.project.store, {}
        for of in [*store.views.values(), *store.catalog.sources.values()]:
            scan = store.lake.table(of).scan().filter(pl.col("customer") != CANARY)
            found[of.name] = scan.drop("known_at").collect().rows()
        return found

    def served(self) -> dict[str, dict[bytes, bytes]]:
        """Every packed value of the others, without its header: it says version and revision."""
        from lockstep.codec import HEADER_BYTES

        online = self.project.store.online_store
        return {
            view: {
                key: value[HEADER_BYTES:]
                for key, value in online.scan("customer", view)
                if CANARY.encode() not in key
            }
            for view in VIEWS
        }

    def traces(self, *, but: tuple[str, ...] = ("lake/landing/",)) -> list[str]:
        """Files of the project, and Redis keys, in which the name or the address stands."""
        words = (CANARY.encode(), EMAIL.encode())
        found = []
        for path in sorted(self.project.folder.rglob("*")):
            name = path.relative_to(self.project.folder).as_posix()
            if not path.is_file() or name.startswith(but):
                continue
            if any(word in text for word in words for text in texts_of(path)):
                found.append(name)
        with redis.Redis.from_url(self.server.url) as client:
            for key in client.scan_iter():
                dumped = client.dump(key) or b""
                values = client.hgetall(key) if client.type(key) == b"hash" else {}
                told = b"".join([key, dumped, *values, *values.values()])
                if any(word in told for word in words):
                    found.append(f"redis {key!r}")
        return found


def texts_of(path: Path) -> list[bytes]:
    """A file's bytes and, of Parquet, what it says when it is not compressed."""
    texts = [path.read_bytes()]
    if path.name.endswith(".parquet"):
        texts.append(pl.read_parquet(path, hive_partitioning=False).write_json().encode())
    return texts


@pytest.fixture(scope="module")
def built_shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Everything built, restated once and pushed to a server in the project, which is stopped."""
    folder = tmp_path_factory.mktemp("shop") / "my project"
    views = write_files(folder, CUSTOMERS)
    server = EmbeddedServer(folder / ".lockstep" / "redis")
    with pytest.MonkeyPatch.context() as patch:
        project = enter(folder, views, server.start(), patch)
        for day in DAYS:
            theirs = orders(day, [1e6] if day in BOUGHT else [], first_id=10_000 + day.day)
            theirs = theirs.with_columns(customer=pl.lit(CANARY))
            project.land_orders(str(day), pl.concat([orders(day, [10, 20, 30, 40]), theirs]))
        emails = [*(f"{at}@example.com" for at in range(len(CUSTOMERS))), EMAIL]
        contacts = pl.DataFrame({"customer": [*CUSTOMERS, CANARY], "email": emails})
        contacts.write_parquet(folder / "lake" / "landing" / "contacts" / "contacts.parquet")
        project.build()
        late = orders(VIEW_DAYS[2], [7.5], first_id=20_000)
        project.land_orders("late", late.with_columns(customer=pl.lit(CUSTOMERS[1])))
        project.build()
        for view in VIEWS:
            existing_table(project.store.lake.place.join(f"offline/{view}")).create_checkpoint()
        project.store.online_store.close()
    server.stop()
    return folder, views


@pytest.fixture
def shop(
    built_shop: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    """A copy of the built project with a server of its own."""
    built, views = built_shop
    folder = tmp_path / "my project"
    shutil.copytree(built, folder)
    server = EmbeddedServer(folder / ".lockstep" / "redis")
    yield Shop(enter(folder, views, server.start(), monkeypatch), server)
    server.kill()


def test_nothing_says_the_name_any_more_and_everybody_else_is_as_before(shop: Shop) -> None:
    before, served = shop.rows(), shop.served()
    assert len(shop.traces()) > 20

    done = forget(shop.places(landing=True), shop.whom)

    assert [] == shop.traces(but=())
    assert before == shop.rows()
    assert served == shop.served()
    assert all(found.holds for found in shop.project.store.parity())
    assert {"orders", "contacts", *VIEWS} == done.days.keys()
    assert list(BOUGHT) == done.days["orders"]
    assert (len(BOUGHT) + 1, []) == (
        sum(each.rows for each in done.removed if each.place.startswith("landing/")),
        list(done.left),
    )


def test_old_versions_stay_readable_and_lack_it_too(shop: Shop) -> None:
    table = shop.project.store.lake.table(shop.project.store.catalog.view("spend_2d"))
    versions = range(1, table.head().version + 1)
    before = {v: table.scan(version=v).filter(customer="ada").collect().rows() for v in versions}

    forget(shop.places(), shop.whom)

    after = {version: table.scan(version=version).collect() for version in versions}
    assert before == {v: found.filter(customer="ada").rows() for v, found in after.items()}
    assert not any(CANARY in found["customer"].to_list() for found in after.values())
    assert all(table.read_day(day).height for day in VIEW_DAYS)


def test_a_new_revision_says_that_it_is_an_erasure(shop: Shop) -> None:
    table = shop.project.store.lake.table(shop.project.store.catalog.view("orders_1d"))
    before = table.head().days

    done = forget(shop.places(), shop.whom)

    after = table.head().days
    changed = [day for day, record in after.items() if record.revision > before[day].revision]
    assert set(BOUGHT) & set(VIEW_DAYS) == set(changed) == set(done.days["orders_1d"])
    for day in changed:
        assert before[day].revision + 1 == after[day].revision
        assert {**before[day].note, "erased": [done.digest]} == after[day].note
    assert {day: before[day] for day in VIEW_DAYS if day not in changed} == {
        day: after[day] for day in VIEW_DAYS if day not in changed
    }
    ledger = shop.project.store.lake.latest_entries("orders_1d")
    assert {day: record.content_hash for day, record in after.items()} == {
        day: entry.content_hash for day, entry in ledger.items()
    }


def test_what_was_delivered_is_named_and_held_back_when_it_is_ingested_anew(shop: Shop) -> None:
    done = forget(shop.places(), shop.whom)

    assert len(BOUGHT) + 1 == len(
        [sentence for sentence in done.left if sentence.startswith("landing/")]
    )
    assert "landing/orders/2025-03-03.parquet still holds 1 rows" in done.left[1]
    for outcome in shop.project.ingest():
        assert outcome.status == "unchanged"
    redelivered = orders(LAST, [5.0], first_id=30_000).with_columns(customer=pl.lit(CANARY))
    shop.project.land_orders("again", redelivered)
    shop.project.build()
    assert [] == shop.traces()
    assert all(found.holds for found in shop.project.store.parity())


def test_landed_files_keep_the_order_in_which_they_were_delivered(shop: Shop) -> None:
    """A later file corrects an earlier one; rewriting the earlier must not undo that."""
    lake, source = shop.project.store.lake, shop.project.store.catalog.source("orders")
    corrected = orders(LAST, [99.0], first_id=(LAST - DAYS[0]).days * 100)
    shop.project.land_orders("corrected", corrected)
    shop.project.ingest()
    before = shop.rows()["orders"]
    assert 99.0 in [row[-2] for row in before]

    forget(shop.places(landing=True), shop.whom)

    for outcome in shop.project.ingest():
        assert outcome.status == "unchanged"
    assert before == shop.rows()["orders"]
    assert CANARY not in lake.table(source).scan().collect()["customer"].to_list()


def test_a_second_time_finds_nothing_and_writes_nothing(shop: Shop) -> None:
    forget(shop.places(), shop.whom)
    files = state_of(shop.root)

    again = forget(shop.places(), shop.whom)

    assert [] == list(again.removed)
    assert files == state_of(shop.root)


def state_of(root: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.stat() for path in root.rglob("*") if path.is_file()}
    return {str(path): (status.st_mtime_ns, status.st_size) for path, status in found.items()}


def test_a_dry_run_counts_and_touches_nothing(shop: Shop) -> None:
    files = state_of(shop.root)

    found = find(shop.places(), shop.whom)

    assert files == state_of(shop.root)
    assert 3 == next(each.rows for each in found.removed if each.place == "online")
    assert any(each.place.startswith("offline/spend_2d/") for each in found.removed)
    assert "" == found.digest


def test_frames_in_quarantine_lose_its_rows_and_keep_their_release(shop: Shop) -> None:
    lake = shop.project.store.lake
    quarantine = Quarantine(lake.quarantine)
    frame = pl.DataFrame({"customer": ["ada", CANARY], "orders": [1, 2]})
    item = Quarantined(
        "frame",
        "orders_1d",
        "2025-03-05-abc",
        "Too few rows.",
        ["2025-03-05"],
        NOW.isoformat(),
        {"content_hash": content_hash(frame), "rows": 2},
    )
    quarantine.put_frame(frame, item)
    quarantine.put(item)
    quarantine.mark_released(item, "known", NOW)

    forget(shop.places(), shop.whom)

    (kept,) = quarantine.items("orders_1d")
    left = quarantine.frame(kept)
    assert ["ada"] == left["customer"].to_list()
    assert {(date(2025, 3, 5), content_hash(left))} == quarantine.released_hashes(
        "orders_1d"
    ).keys()


def spine(*customers: str, at: datetime) -> pl.DataFrame:
    instant = pl.lit(at).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"customer": customers}).with_columns(event_timestamp=instant)


def test_training_sets_that_it_touches_are_voided_and_lose_its_rows(shop: Shop) -> None:
    """The third one reads days on which nobody knew the entity any more."""
    store, early = shop.project.store, datetime(2025, 3, 7, 17, tzinfo=UTC)
    spend = ["spend_2d:spend"]
    store.training_set(spine("ada", CANARY, at=NOW), spend, name="holding")
    store.training_set(spine("ada", "bob", at=early), spend, name="pinned")
    store.training_set(spine("ada", "bob", at=NOW), spend, name="untouched")
    folder = shop.root / "training_sets"
    shutil.copy(folder / "pinned" / "manifest.json", shop.project.folder / "a.manifest.json")

    done = forget(shop.places(landing=True), shop.whom)

    assert ["holding", "pinned"] == list(done.voided)
    for name in done.voided:
        assert {"data.parquet", "spine.parquet", "voided.json"} == {
            path.name for path in (folder / name).iterdir()
        }
        said = lockstep("rebuild", name, status=2).stderr
        assert f"The training set {name} was voided by an erasure." in " ".join(said.split())
    for kept in ("data", "spine"):
        rows = pl.read_parquet(folder / "holding" / f"{kept}.parquet")
        assert ["ada"] == rows["customer"].to_list()
    said = lockstep("rebuild", "a.manifest.json", status=2).stderr
    assert "voided by an erasure" in " ".join(said.split())
    lockstep("rebuild", "untouched")
    assert [] == shop.traces(but=())


def test_what_was_known_of_the_others_then_is_known_still(shop: Shop) -> None:
    store = shop.project.store
    asked = pl.concat(
        spine(*CUSTOMERS, at=NOW + timedelta(seconds=seconds)) for seconds in (-86_400, 0, 3_600)
    )
    features = ["spend_2d:spend", "orders_1d:orders", "contact:email"]
    before = store.training_set(asked, features, mode="known").frame

    forget(shop.places(), shop.whom)

    assert before.equals(store.training_set(asked, features, mode="known").frame)
    for view in VIEWS:
        store.lake.keep_superseded(store.catalog.view(view), VIEW_DAYS)
    assert [] == shop.traces()


def test_a_push_that_was_planned_before_writes_nothing_after(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = orders(BOUGHT[1], [3.0], first_id=40_000).with_columns(customer=pl.lit(CANARY))
    shop.project.land_orders("much later", late)
    shop.project.ingest()
    shop.project.materialize("orders_1d")
    real, refused = OnlineStore.push, []

    def meanwhile(self: OnlineStore, *where: Any, **settings: Any) -> Any:
        *place, blocks = where
        planned = list(blocks)
        assert any(key.endswith(CANARY.encode()) for rows in planned for key in rows.keys)
        monkeypatch.setattr(OnlineStore, "push", real)
        forget(shop.places(landing=True), shop.whom)
        try:
            return real(self, *place, planned, **settings)
        except ConflictError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(OnlineStore, "push", meanwhile)

    shop.project.push("orders_1d")

    assert 1 == len(refused)
    assert [] == shop.traces(but=())
    assert all(found.holds for found in shop.project.store.parity())


def test_an_entity_with_more_key_columns_is_forgotten_with_it() -> None:
    shopper = Entity("shopper", {"customer": pl.String})
    basket = Entity("basket", {"basket_id": pl.Int64, "customer": pl.String})
    other = Entity("store", {"store_id": pl.Int64})
    whom = forgetting(
        shopper, {"customer": "9"}, {each.name: each for each in (shopper, basket, other)}
    )

    frame = pl.LazyFrame({"basket_id": [1, 2, 3], "customer": [9, 8, None]})
    match = whom.match(frame)

    assert {"shopper": (0,), "basket": (1,)} == whom.positions
    assert whom.has("basket", encode_key([4, "9"]))
    assert not whom.has("basket", encode_key([9, "4"]))
    assert match is not None
    assert [1] == frame.filter(match).collect()["basket_id"].to_list()
    assert whom.match(pl.LazyFrame({"store_id": [1]})) is None


def test_a_file_of_a_killed_writer_goes_with_the_rest(shop: Shop) -> None:
    table = shop.root / "offline" / "orders_1d" / "day=2025-03-05"
    (table / "part-0.parquet#1").write_bytes(b"PAR1 half of it " + CANARY.encode())
    (table / ".lockstep-tmp-4711").write_bytes(CANARY.encode())

    forget(shop.places(landing=True), shop.whom)

    assert [] == shop.traces(but=())


def test_a_served_feature_log_loses_what_it_was_answered(shop: Shop) -> None:
    folder = shop.root / "landing" / "served_features"
    folder.mkdir()
    said = [
        {"served_at": NOW, "entity": "customer", "key": encode_key([name]).decode(), "text": "x"}
        for name in ("ada", CANARY)
    ]
    pl.DataFrame(said).write_parquet(folder / "a_2025-03-11.parquet")

    forget(shop.places(landing=True), shop.whom)

    left = pl.read_parquet(folder / "a_2025-03-11.parquet")
    assert [encode_key(["ada"]).decode()] == left["key"].to_list()


DYING = """
import os, sys
from datetime import datetime
import lockstep.store
import lockstep.stores.files as files
from lockstep.cli import app
from lockstep.project import find_project

at, die_at = datetime.fromisoformat(sys.argv.pop(1)), int(sys.argv.pop(1))
lockstep.store.open_store = lambda: lockstep.store.Store(find_project(), now=lambda: at)
count = 0

def dying(real):
    def change(*args):
        global count
        count += 1
        if count == die_at:
            os.kill(os.getpid(), 9)
        return real(*args)
    return change

for name in ("write", "write_if_absent", "delete"):
    setattr(files._LocalPlace, name, dying(getattr(files._LocalPlace, name)))
app(standalone_mode=False)
print(count)
"""


def forgotten_by_a_child(shop: Shop, die_at: int) -> "subprocess.CompletedProcess[str]":
    words = ["forget", "customer", f"customer={CANARY}", "--yes", "--landing"]
    return subprocess.run(
        [sys.executable, "-c", DYING, NOW.isoformat(), str(die_at), *words],
        cwd=shop.project.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_killed_again_and_again_it_is_completed_by_the_next_run(shop: Shop) -> None:
    """Each child gets a little further, from wherever the one before has died."""
    before, served = shop.rows(), shop.served()
    ended = [forgotten_by_a_child(shop, die_at) for die_at in (4, 9, 17, 26)]

    assert [-9] * 4 == [child.returncode for child in ended], [child.stderr for child in ended]
    last = forgotten_by_a_child(shop, 0)

    assert 0 == last.returncode, last.stderr
    assert [] == shop.traces(but=())
    assert before == shop.rows()
    assert served == shop.served()
    assert all(found.holds for found in shop.project.store.parity())


def lockstep(*arguments: str, status: int = 0, said: str = "") -> Result:
    result = CliRunner().invoke(app, list(arguments), input=said)
    assert result.exit_code == status, result.output
    return result


def test_the_command_asks_first_and_says_what_it_did(shop: Shop) -> None:
    key = f"customer={CANARY}"
    files = state_of(shop.root)
    lockstep("forget", "customer", key, said="n\n", status=1)
    assert files == state_of(shop.root)

    dry = json.loads(lockstep("forget", "customer", key, "--dry-run", "--json").stdout)
    done = json.loads(lockstep("forget", "customer", key, "--yes", "--json").stdout)

    assert dry["removed"] == done["removed"]
    assert done["rows"] > 30
    assert CANARY not in json.dumps(done)
    assert "Nothing of it is there." in lockstep("forget", "customer", key, "--yes").stdout


@pytest.mark.parametrize(("answer", "status"), [("n\n", 1), ("y\n", 0)])
def test_of_whom_nothing_is_there_it_asks_whether_to_hold_back_what_comes(
    shop: Shop, answer: str, status: int
) -> None:
    there = lockstep("forget", "customer", f"customer={CANARY}", said="n\n", status=1)
    files = state_of(shop.root)

    asked = lockstep("forget", "customer", "customer=nobody", said=answer, status=status)

    assert "Remove all of this for ever?" in there.stderr
    assert "Nothing of it is there." in asked.stdout
    assert "Hold back rows of it from now on?" in asked.stderr
    assert "Remove all" not in asked.stderr
    assert (files == state_of(shop.root)) == (status == 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("household", "customer=x"), "There is no entity named 'household'"),
        (("customer", "household_id=900"), "do not name one customer"),
        (("customer", "customer"), "names no key column"),
    ],
)
def test_a_key_that_names_nobody_is_refused(shop: Shop, words: tuple[str, str], said: str) -> None:
    assert said in lockstep("forget", *words, "--yes", status=2).stderr


@pytest.mark.parametrize("erased", [False, True])
def test_after_gc_a_view_is_rebuilt_online_from_what_was_kept(shop: Shop, *, erased: bool) -> None:
    store, before = shop.project.store, shop.served()
    if erased:
        forget(shop.places(landing=True), shop.whom)
    for found in collect_garbage(
        store.lake.place, now=datetime(2030, 1, 1, tzinfo=UTC), keep=timedelta(0)
    ):
        assert (None, ()) == (found.refused, found.lost)
    store.online_store.ask("FLUSHALL")

    for view in store.views.values():
        push(store.lake, store.online_store, view, now=store.now)

    assert before == shop.served()
    assert all(found.holds for found in store.parity())
    assert erased == ([] == shop.traces(but=()))
