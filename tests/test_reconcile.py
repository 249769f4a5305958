"""Reconcile: what is a finding and what is not, how likely a loss is seen, and who else is at work.

That every real fault is found and repaired is in `test_g6_lost_redis.py`.
"""

import inspect
import math
import random
import textwrap
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep import judgement, reconcile, sampling
from lockstep.errors import ConflictError, OnlineError
from lockstep.facts import sealed_day
from lockstep.judgement import Sealed, judge
from lockstep.last_look import Memory, Seen, Servers
from lockstep.layout import Seal
from lockstep.sampling import DEEP_LOSS, LOSS, MISS, WHOLE, compare, draw, settled_days, share
from lockstep.stores.day_index import DayRecord, Head
from lockstep.stores.delta import DayTable
from lockstep.throttle import Throttle
from lockstep.time import encode_revisions
from lockstep.unready import Mark
from tests.lost_redis import LAST, Lost, commit_wide, lost, lost_wide, restate
from tests.scenario import START, instant

D1, D2 = START, START + timedelta(days=1)


def head_at(version: int, days: dict[date, int], table: str = "t") -> Head:
    at = instant(D1)
    records = {d: DayRecord(d, r, "", version, at, 1, {}) for d, r in days.items()}
    return Head(table, version, records)


def seal(version: int, days: dict[date, int], table: str = "t") -> Seal:
    return Seal(table, version, encode_revisions(days), 0)


def sealed(*seals: Seal | None, tables: frozenset[str] = frozenset({"t"})) -> Sealed:
    return Sealed(dict(enumerate(seals)), tables)


NOW = {D1: 1, D2: 1}
GOOD = seal(2, NOW)
HEAD = head_at(2, NOW)
BEFORE = Seen(table_id="t", version=2)


@pytest.mark.parametrize(
    ("found", "seen", "code"),
    [
        (sealed(GOOD, GOOD), BEFORE, None),
        (sealed(GOOD, GOOD), Seen(), None),
        (sealed(GOOD, None), BEFORE, "lost"),
        (sealed(None, None, tables=frozenset()), BEFORE, "lost"),
        (sealed(GOOD, None), Seen(), "unfinished"),
        (sealed(None, None, tables=frozenset()), Seen(), "behind"),
        (sealed(GOOD, seal(1, {D1: 1})), Seen(), "behind"),
        (sealed(GOOD, seal(1, {D1: 1})), BEFORE, "rolled_back"),
        (sealed(GOOD, seal(3, NOW)), Seen(), "ahead"),
        (sealed(GOOD, seal(2, NOW, "u")), Seen(), "foreign"),
        (sealed(GOOD, seal(2, NOW, "u")), BEFORE, "rolled_back"),
        (sealed(GOOD, GOOD, tables=frozenset({"t", "u"})), Seen(), "foreign"),
        (sealed(GOOD, None, tables=frozenset({"t", "wiping t"})), BEFORE, "wiping"),
        (sealed(GOOD, GOOD), Seen(table_id="s", version=9), None),
    ],
)
def test_seals_are_judged_by_delta_and_by_what_was_seen(
    found: Sealed, seen: Seen, code: str | None
) -> None:
    suspicion = judge(found, HEAD, NOW, seen)

    assert code == (suspicion.code if suspicion else None)


def test_only_what_another_push_goes_through_is_given_time() -> None:
    immediate = set(judgement.Code.__args__) - judgement.PATIENCE.keys()

    assert {"lost", "rolled_back", "rows", "ahead"} <= immediate
    assert all(patience <= timedelta(minutes=10) for patience in judgement.PATIENCE.values())


@pytest.mark.parametrize("loss", [LOSS, DEEP_LOSS])
@pytest.mark.parametrize("entities", [WHOLE + 1, 20_000, 123_456, 1_000_000, 50_000_000])
def test_the_share_misses_a_loss_with_the_promised_probability(entities: int, loss: float) -> None:
    lost_entities = math.ceil(entities * loss)
    drawn = share(entities, loss=loss)

    missed = math.exp(lost_entities * math.log1p(-drawn))

    assert missed == pytest.approx(MISS, rel=1e-6)
    assert entities * drawn < 1.01 * math.log(MISS) / math.log(1 - loss) + 1


def test_small_views_are_compared_whole() -> None:
    assert share(WHOLE) == 1


@pytest.mark.parametrize(("blocks", "seen"), [(460, 0.99), (300, 0.95)])
def test_the_example_of_the_paper_comes_out(blocks: int, seen: float) -> None:
    """Of a file with one per cent gone, 460 blocks see it with 99 %, 300 with 95 %."""
    assert 1 - 0.99**blocks == pytest.approx(seen, abs=0.001)


def test_a_weaker_sample_sees_losses_as_often_as_the_formula_says(
    tmp_path: Path, redis_url: str
) -> None:
    """With a miss of one in three, 300 draws miss about a hundred times."""
    found = lost_wide(tmp_path, redis_url, 6_000)
    view, lake = found.views[0], found.made.store.lake
    head = lake.table(view).head()
    whole = draw(lake, view, head, found.made.clock(), loss=1.0, seed=0)
    gone = set(random.Random(1).sample(list(everything(found)), 60))
    weak = 1 - (1 / 3) ** (1 / 60)

    missed = sum(not gone & set(drawn_with(found, weak, seed).expected) for seed in range(300))

    assert 70 <= missed <= 130  # 100 ± 3.7 standard deviations
    assert len(whole.expected) < 6_000


def everything(found: Lost) -> dict[bytes, bytes]:
    return found.served("wide")


def drawn_with(found: Lost, probability: float, seed: int) -> Any:
    view, lake = found.views[0], found.made.store.lake
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "share", lambda *_, **__: probability)
        return draw(lake, view, lake.table(view).head(), found.made.clock(), loss=LOSS, seed=seed)


def test_the_sample_is_drawn_evenly_and_anew_for_another_seed(
    tmp_path: Path, redis_url: str
) -> None:
    found = lost_wide(tmp_path, redis_url, 6_000)
    drawn: Counter[bytes] = Counter()
    sizes = []
    for seed in range(40):
        sample = drawn_with(found, 0.25, seed)
        drawn.update(sample.expected.keys())
        sizes.append(len(sample.expected))

    assert all(1_300 <= size <= 1_700 for size in sizes)  # 1500 ± 6 standard deviations
    assert len(drawn) > 5_990
    assert max(drawn.values()) <= 28


def test_a_view_that_is_a_day_behind_is_not_lost(tmp_path: Path, redis_url: str) -> None:
    found = lost(tmp_path, redis_url)
    restate(found, found.made.views.spend_3d, LAST)
    looks = [found.look()]
    found.wait(300)
    looks.append(found.look())
    found.wait(301)

    assert [{}, {}] == looks
    assert found.look() == {"spend_3d": "behind"}
    assert found.marked() == found.not_ready() == set()
    assert all(each.holds for each in found.reconcile())


def test_a_loss_is_seen_also_where_a_view_is_behind(tmp_path: Path, redis_url: str) -> None:
    found = lost(tmp_path, redis_url)
    restate(found, found.made.views.spend_3d, LAST - timedelta(days=3))
    with found.raw() as client:
        client.hdel(found.names("spend_3d")[0], "spend_3d")

    assert found.look() == {"spend_3d": "rows"}


def test_rows_that_expired_meanwhile_are_no_finding(tmp_path: Path, redis_url: str) -> None:
    found = lost(tmp_path, redis_url)
    for _ in range(5):
        found.wait(20 * 3600)
        assert not set(found.look().values()) - {"behind"}


@pytest.mark.parametrize("seed", range(4))
def test_a_healthy_store_with_pushers_at_work_gives_no_finding(
    tmp_path: Path, redis_url: str, seed: int
) -> None:
    """Two pushers, commits of three days in any order, and looks that never rest."""
    found = lost_wide(tmp_path, redis_url, 300)
    view, chance = found.views[0], random.Random(seed)
    done = threading.Event()

    def pushing() -> None:
        other = found.made.restart()
        while not done.is_set():
            try:
                other.push(view)
            except ConflictError:
                continue  # the other one kept winning

    pushers = [threading.Thread(target=pushing) for _ in range(2)]
    for pusher in pushers:
        pusher.start()
    found_wrong = []
    for turn in range(12):
        day = LAST - timedelta(days=chance.randrange(3))
        users = chance.sample(range(300), chance.randrange(1, 300))
        commit_wide(found.made, view, day, {user: turn * 1000 + user for user in users})
        found_wrong += [found.look() for _ in range(4)]
        found.wait(1)
    done.set()
    for pusher in pushers:
        pusher.join()
    found.made.push(view)

    assert [] == [each for each in found_wrong if each]
    assert found.look() == {}
    assert found.is_whole()


def test_two_reconcilers_at_once_are_harmless(tmp_path: Path, redis_url: str) -> None:
    found = lost(tmp_path, redis_url)
    with found.raw() as client:
        for view in ("spend_3d", "pace"):
            client.hdel(found.names(view)[0], view)
    others = [
        Lost(found.made.restart(), found.url, Memory(None, ""), found.views) for _ in range(2)
    ]
    threads = [threading.Thread(target=each.reconcile) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.reconcile(patient=False)

    assert found.is_whole()
    assert found.look() == {}


def test_what_was_seen_survives_the_process_and_not_another_server(
    tmp_path: Path, redis_url: str
) -> None:
    file = tmp_path / "state" / "reconcile.json"
    first = Memory(file, "here")
    first.load()
    first.remember("v", Seen("t", 7, Servers("a", 3), "x", 5))
    first.save()
    again, elsewhere = Memory(file, "here"), Memory(file, "there")
    again.load()
    elsewhere.load()

    assert Seen("t", 7, Servers("a", 3), "x", 5) == again.seen("v")
    assert Seen() == elsewhere.seen("v")
    file.write_text("{")
    again.load()
    assert Seen() == again.seen("v")
    assert [file] == list(file.parent.iterdir())


def test_a_restart_alone_is_no_finding_and_makes_the_next_look_deep(
    own_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lost(tmp_path / "project", own_server.url)
    looked: list[float] = []
    real = Memory.sample

    def sample(self: Memory, *args: Any, loss: float) -> Any:
        looked.append(loss)
        return real(self, *args, loss=loss)

    monkeypatch.setattr(Memory, "sample", sample)
    own_server.stop()
    assert found.url == own_server.start()

    assert [{}, {}] == [found.look(), found.look()]
    assert [DEEP_LOSS] * 3 + [LOSS] * 3 == looked


def test_a_look_opens_no_table_that_has_not_changed(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lost(tmp_path, redis_url)
    opened: list[str] = []
    real = DayTable.head_or_none

    def head_or_none(self: DayTable) -> Head | None:
        opened.append(self.name)
        return real(self)

    monkeypatch.setattr(DayTable, "head_or_none", head_or_none)
    found.look()
    quiet = list(opened)
    restate(found, found.made.views.spend_3d, LAST)
    opened.clear()
    found.look()

    assert [] == quiet
    assert ["spend_3d"] == opened


def test_samples_are_bounded_together(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lockstep import last_look

    found = lost(tmp_path, redis_url)
    monkeypatch.setattr(last_look, "_MAX_ROWS", 50)
    found.look()

    assert sum(len(s.expected) for s in found.memory._samples.values()) <= 50
    assert found.look() == {}


def test_a_store_that_does_not_answer_is_said_and_nothing_is_forgotten(
    own_server: Any, tmp_path: Path
) -> None:
    found = lost(tmp_path / "project", own_server.url)
    own_server.kill()
    with pytest.raises(OnlineError, match="cannot be used"):
        found.look()
    own_server.start()

    assert found.look() == {}


def test_the_mark_names_no_entity(tmp_path: Path, redis_url: str) -> None:
    """Every caller of the service may read it."""
    found = lost(tmp_path, redis_url)
    with found.raw() as client:
        client.hdel(found.names("profile")[0], "profile")
    found.marked()

    (said,) = found.made.store.online_store.notes("unready").values()

    assert "1 of 40 entities are wrong online: 1 lost." in said
    assert "user" not in said


@given(
    st.lists(
        st.dictionaries(st.sampled_from([D1, D2, LAST]), st.integers(1, 3)), min_size=1, max_size=4
    )
)
def test_settled_days_are_sealed_everywhere_at_the_committed_revision(
    maps: list[dict[date, int]],
) -> None:
    head = head_at(5, {D1: 1, D2: 2, LAST: 3})
    settled = settled_days(head, maps)
    seals = {n: seal(5, days) for n, days in enumerate(maps)}

    assert settled == {
        day for day in head.days if all(m.get(day) == head.days[day].revision for m in maps)
    }
    everywhere = set.intersection(*(set(days) for days in maps))
    assert sealed_day(head, seals) == max(everywhere, default=None)


def test_a_row_of_a_version_that_delta_lacks_is_wrong_though_its_content_is_right(
    tmp_path: Path, redis_url: str
) -> None:
    found = lost_wide(tmp_path, redis_url, 5)
    view, lake = found.views[0], found.made.store.lake
    head = lake.table(view).head()
    sample = draw(lake, view, head, found.made.clock(), loss=LOSS, seed=0)
    name = found.names("wide")[0]
    with found.raw() as client:
        value = bytearray(client.hget(name, "wide"))
        value[3] += 1
        client.hset(name, "wide", bytes(value))
    online = found.made.store.online_store

    asked_once_more = compare(online, view, sample, set(head.days))
    wrong = compare(online, view, sample, set(head.days), newest=head.version)
    after_a_commit = compare(online, view, sample, set(head.days), newest=head.version + 1)

    assert ["different"] == list(asked_once_more.values()) == list(wrong.values())
    assert {} == after_a_commit


def test_a_repair_is_paced_as_a_push_is(tmp_path: Path, redis_url: str) -> None:
    found = lost(tmp_path, redis_url)
    with found.raw() as client:
        client.hdel(found.names("profile")[0], "profile")
    clock = StillClock()
    made: list[Throttle] = []

    def throttle() -> Throttle:
        made.append(Throttle(clock, clock.sleep, start_rate=100, most=100))
        return made[-1]

    store = found.made.store
    _, repaired = reconcile.reconcile(
        store.lake,
        store.online_store,
        found.views,
        now=found.made.clock,
        memory=found.memory,
        throttle=throttle,
    )

    (done,) = repaired
    assert done.holds
    assert done.pushed
    assert done.pushed.receipt.written == 40
    assert [each.waited for each in made] == [pytest.approx(0.4)]
    assert clock.now == pytest.approx(0.4)


def unseen_losses(found: Lost, count: int) -> list[bytes]:
    """Delete rows that neither the samples of a look nor of parity meet; return their names."""
    (view,), store, gone = found.views, found.made.store, []
    with found.raw() as client:
        for name in found.names(view.name):
            value = client.hget(name, view.name)
            client.hdel(name, view.name)
            (seen,) = store.parity(view.name)
            if seen.holds and found.look() == {}:
                gone.append(name)
            else:
                client.hset(name, view.name, value)
            if len(gone) == count:
                break
    return gone


def test_a_sample_takes_no_mark_back_that_another_sample_gave(
    tmp_path: Path, redis_url: str
) -> None:
    found = lost_wide(tmp_path, redis_url, 6_000, parity=100)
    gone = unseen_losses(found, 3)
    # What a look of another process says, whose sample met one of them.
    found.made.store.online_store.note("unready", "wide", Mark("1 lost.", found.made.clock()).text)

    (done,) = found.reconcile(patient=False)

    assert (3, "marked", True) == (len(gone), done.finding.code, done.holds)
    assert set(gone) < set(found.names("wide"))
    assert 6_000 == len(found.served("wide"))
    assert set() == found.not_ready()


def test_a_sample_after_a_push_that_was_no_rebuild_leaves_the_mark(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others repaired the view at the same time: what they did is not known."""
    found = lost_wide(tmp_path, redis_url, 6_000, parity=100)
    found.made.store.online_store.note("unready", "wide", Mark("1 lost.", found.made.clock()).text)
    real = reconcile.push

    def outrun(*args: Any, rebuild: bool, **more: Any) -> Any:
        if rebuild:
            raise ConflictError("Others kept pushing it.")
        return real(*args, rebuild=rebuild, **more)

    monkeypatch.setattr(reconcile, "push", outrun)
    (done,) = found.reconcile(patient=False)
    marked = found.not_ready()
    monkeypatch.setattr(reconcile, "push", real)
    found.reconcile(patient=False)

    assert done.holds
    assert {"wide"} == marked
    assert set() == found.not_ready()


def mutated(function: Any, old: str, new: str) -> Any:
    """The function with a piece of its source replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{old!r} stands there {source.count(old)} times"
    space = dict(function.__globals__)
    exec(source.replace(old, new), space)  # noqa: S102
    return space[function.__name__]


@dataclass
class StillClock:
    """Time that only passes when somebody sleeps."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def lose_a_row(found: Lost) -> None:
    with found.raw() as client:
        client.hdel(found.names("pace")[0], "pace")


def lose_a_seal(found: Lost) -> None:
    with found.raw() as client:
        client.hdel(found.made.store.online_store.names.bucket_key("user", 2), "pace")


@pytest.mark.parametrize(
    ("fault", "function", "old", "new"),
    [
        (
            lose_a_row,
            "_wrong_rows",
            "wrong = compare(asked.online, view, sample, settled)",
            "wrong = {}",
        ),
        (
            lose_a_seal,
            "_examined",
            "worst = judge(sealed, head, _ended(asked, head), before)",
            "worst = None",
        ),
    ],
    ids=["the sample", "the seals"],
)
def test_each_guard_is_needed(
    tmp_path: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
    function: str,
    old: str,
    new: str,
) -> None:
    """Without the sample, or without the comparison of seals, its fault goes unseen."""
    found = lost(tmp_path, redis_url)
    fault(found)
    with_it = found.look()
    monkeypatch.setattr(reconcile, function, mutated(getattr(reconcile, function), old, new))

    assert with_it.keys() == {"pace"}
    assert found.look() == {}
