"""The point-in-time join of one view against a naive look at every row, for both modes."""

import struct
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from polars.testing import assert_frame_equal

from lockstep.errors import InputError, StoreError
from lockstep.training import pit, pit_gather, pit_keys, timeline
from lockstep.training.pit import Hits, Moments, ask, find
from lockstep.training.pit_gather import gather
from lockstep.training.timeline import Rows, Slice, event_slices, known_slices
from tests.mutating import mutate
from tests.pit_oracle import (
    DAYS,
    HOUR,
    KINDS,
    MOMENT,
    NEW_YORK,
    Kept,
    Oracle,
    Revision,
    World,
    end_of,
    spine_of,
    worlds,
)

TYPES: dict[str, pl.DataType] = {"v": pl.Float64(), "n": pl.String(), "late": pl.Int64()}
FIRST, SECOND, THIRD = (end_of(day, NEW_YORK) for day in DAYS[:3])


def slices_of(world: World) -> list[Slice]:
    if world.mode == "event":
        current = {day: revisions[-1] for day, revisions in world.history.items()}
        return event_slices(current, world.zone)
    return known_slices(world.history, world.zone, world.delay)


def joined(
    world: World, slices: Sequence[Slice] | None = None, *, readers: int = 1
) -> tuple[Hits, pl.DataFrame]:
    slices, rows, spine = slices or slices_of(world), Kept(world), spine_of(world)
    asked = ask(spine.drop("at"), spine["at"])
    hits = find(asked, slices, rows, world.ttl, readers=readers)
    return hits, gather(hits, slices, rows, list(TYPES), TYPES, readers=readers)


def check(world: World) -> None:
    """Every hit, age, expiry and value is what looking at every row finds."""
    slices, oracle = slices_of(world), Oracle(world)
    hits, values = joined(world, slices)

    assert TYPES == dict(values.schema)
    assert len(world.asked) == values.height
    for number, (entity, at) in enumerate(world.asked):
        expected = oracle.look(entity, at)
        piece = int(hits.piece[number])
        got = None if piece < 0 else (slices[piece].day, slices[piece].revision)
        held = expected.revision
        assert (None if held is None else (held.day, held.revision)) == got
        assert repr(expected.cells) == repr(values.row(number))
        age = -1 if expected.age is None else expected.age // MOMENT
        assert (age, expected.expired) == (int(hits.age_us[number]), bool(hits.expired[number]))


def revision(
    day: date, number: int, known_at: datetime, *entities: int, extra: str | None = "Int64"
) -> Revision:
    cells = {entity: (float(number), f"{day}", number * 10 + entity) for entity in entities}
    return Revision(day, number, number, known_at, cells, extra)


def history(*revisions: Revision) -> dict[date, list[Revision]]:
    found: dict[date, list[Revision]] = {}
    for one in revisions:
        found.setdefault(one.day, []).append(one)
    return found


def around(*instants: datetime, entity: int = 1) -> list[tuple[int | None, datetime | None]]:
    return [(entity, at + off * MOMENT) for at in instants for off in (-1, 0, 1)]


LATE = FIRST + timedelta(days=9)
# The view went live before the days that the worlds are about.
LIVE = revision(DAYS[0] - timedelta(days=9), 1, FIRST - timedelta(days=8))
BOUNDS = World(
    history(revision(DAYS[0], 1, FIRST, 1)),
    around(FIRST, FIRST + HOUR, FIRST + 2 * HOUR),
    HOUR,
)
LATE_OLDER_DAY = World(
    history(
        LIVE,
        revision(DAYS[2], 1, THIRD, 1),
        revision(DAYS[1], 1, SECOND),
        revision(DAYS[0], 1, LATE, 1),
    ),
    around(THIRD, LATE) + around(LATE, entity=2),
    None,
)
DROPPED = World(
    history(
        revision(DAYS[0], 1, FIRST, 1, 2),
        revision(DAYS[1], 1, SECOND, 1, 2, 3),
        revision(DAYS[1], 2, LATE, 2),
        revision(DAYS[2], 1, THIRD, 4),
    ),
    [pair for entity in range(1, 5) for pair in around(LATE, THIRD, entity=entity)],
    None,
)
DROPPED_AND_BACK = World(
    history(
        revision(DAYS[0], 1, FIRST, 1),
        revision(DAYS[0], 2, LATE + HOUR),
        revision(DAYS[1], 1, SECOND, 1),
        revision(DAYS[1], 2, LATE),
        revision(DAYS[1], 3, LATE + 2 * HOUR, 1),
    ),
    around(LATE, LATE + HOUR, LATE + 2 * HOUR),
    None,
)
DROPPED_THEN_OLDER_DAYS_LAND = World(
    history(
        LIVE,
        revision(DAYS[2], 1, THIRD, 1),
        revision(DAYS[2], 2, LATE),
        revision(DAYS[0], 1, LATE + HOUR, 1),
        revision(DAYS[1], 1, LATE + 2 * HOUR, 1),
    ),
    around(LATE, LATE + HOUR, LATE + 2 * HOUR),
    None,
)
GROWN = World(
    history(
        revision(DAYS[0], 1, FIRST, 1, 2, extra=None),
        revision(DAYS[0], 2, LATE, 1, 2, extra="String"),
        revision(DAYS[0], 3, LATE + HOUR, 1),
        revision(DAYS[0], 4, LATE + 2 * HOUR, 1, 2),
    ),
    around(FIRST, LATE, LATE + HOUR) + around(FIRST, LATE + 2 * HOUR, entity=2),
    None,
)


WORLDS = {
    "the bounds of a ttl": BOUNDS,
    "the bounds in event time": replace(BOUNDS, mode="event"),
    "an older day lands late": LATE_OLDER_DAY,
    "an older day lands late, in event time": replace(
        LATE_OLDER_DAY, mode="event", kind="two columns"
    ),
    "restatements drop entities": DROPPED,
    "keys far apart": replace(DROPPED, kind="whole numbers far apart"),
    "keys that the spine lacks": replace(
        DROPPED,
        asked=around(LATE, THIRD) + around(LATE, entity=0),
        kind="whole numbers far apart",
    ),
    "an entity is dropped twice and comes back": DROPPED_AND_BACK,
    "an entity is dropped before older days land": DROPPED_THEN_OLDER_DAYS_LAND,
    "a column is added, and retyped": GROWN,
    "a column is added, in event time": replace(GROWN, mode="event"),
    "a view without days": World({}, [(1, FIRST), (None, None)], None),
    "a spine without rows": World(history(revision(DAYS[0], 1, FIRST)), [], HOUR),
    "nulls": replace(BOUNDS, asked=[(None, FIRST), (1, None), (1, FIRST), (None, None)]),
}


@pytest.mark.parametrize("name", list(WORLDS))
def test_the_rules_hold_where_they_are_easily_broken(name: str) -> None:
    check(WORLDS[name])


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_every_cell_is_what_a_naive_look_at_every_row_finds(world: World) -> None:
    check(world)


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_the_result_depends_neither_on_threads_nor_on_parts_nor_on_the_order_of_slices(
    world: World,
) -> None:
    slices = slices_of(world)
    hits, values = joined(world, slices)

    parallel, same = joined(world, slices, readers=2)
    halves = [
        joined(replace(world, asked=part), slices)
        for part in (world.asked[0::2], world.asked[1::2])
    ]
    _, shuffled = joined(world, slices[::-1])

    assert_frame_equal(values, same, check_exact=True)
    assert_frame_equal(values, shuffled, check_exact=True)
    for name in ("piece", "row", "age_us", "expired"):
        whole = getattr(hits, name)
        np.testing.assert_array_equal(whole, getattr(parallel, name))
        for start, (part, _) in enumerate(halves):
            np.testing.assert_array_equal(whole[start::2], getattr(part, name))


MUTATIONS: dict[str, tuple[Any, str, str]] = {
    "a row does not hold at its very event_timestamp": (
        pit._reaches,
        "int(np.searchsorted(at, piece.effect_us))",
        'int(np.searchsorted(at, piece.effect_us, side="right"))',
    ),
    "the end of the ttl is outside": (pit._hits, "known & (old <= limit)", "known & (old < limit)"),
    "the ttl is ignored": (pit._hits, "if ttl is not None:", "if False:"),
    "slices are walked by day, not by when they take effect": (
        pit._reaches,
        "(reach.first, reach.rank)",
        "(reach.rank, reach.first)",
    ),
    "a day that lands late displaces newer ones": (
        pit._walk,
        "here if reach.rank > newest else np.maximum(latest[ids], here)",
        "here",
    ),
    "a row that a restatement dropped is kept": (
        pit._walk,
        "if gone := seen.intersection(reach.earlier):",
        "if gone := set():",
    ),
    "a dropped entity does not fall back to an older day": (
        pit._fall_back,
        "        places[wanting[has]] =",
        "        _ =",
    ),
    "the fallback takes the oldest": (pit._fall_back, "-reach.rank)", "reach.rank)"),
    "the fallback sees what was superseded": (
        pit._fall_back,
        "[reach.first, reach.end]",
        "[reach.first, len(places)]",
    ),
    "the fallback sees what does not count yet": (
        pit._fall_back,
        "[reach.first, reach.end]",
        "[0, reach.end]",
    ),
    "a superseded revision still counts": (
        pit._reaches,
        "int(np.searchsorted(at, superseded))",
        "len(at)",
    ),
    "nothing is found beyond the ttl": (pit._reaches, "2 * (ttl //", "0 * (ttl //"),
    "an empty revision supersedes nothing": (
        pit._reaches,
        "if first < end:",
        "if first < end and piece.rows:",
    ),
    "the spine is taken to be in order of time": (
        pit._order,
        "at.to_physical().arg_sort(nulls_last=True).to_numpy()",
        "np.arange(len(at), dtype=np.uint32)",
    ),
    "a null timestamp is the epoch": (pit._order, " - at.null_count()", ""),
    "a null key is a key": (
        pit.ask,
        "np.full(keys.height, found.count + 1",
        "np.full(keys.height, 0",
    ),
    "a key that the spine lacks is another one": (
        pit_keys._Hashed.of,
        "== values[left]",
        "!= values[left] + 1",
    ),
    "a text is taken for another of the same hash": (
        pit_keys._Column.of,
        "(self.texts.gather(pl.Series(found)) == values)",
        "(self.texts.gather(pl.Series(found)) != values)",
    ),
    "a late column is null where the revision lacked it": (
        pit_gather._from_later,
        "values.gather(places)",
        "values[-1:].new_from_index(0, len(ids))",
    ),
    "a late column comes from the newest revision": (
        pit_gather._from_later,
        "key=lambda s: s.revision)",
        "key=lambda s: -s.revision)",
    ),
    "values stay in the order of slices": (
        pit_gather.gather,
        "position[order] = ",
        "position[: len(order)] = ",
    ),
    "a backfill counts from its certification": (
        timeline.known_slices,
        "end < began",
        "False",
    ),
    "a backfill's restatement counts from the landing delay": (
        timeline.known_slices,
        "number == 0 and",
        "",
    ),
    "a revision counts before its day has ended": (
        timeline.known_slices,
        "micros(max(end, since))",
        "micros(since - timedelta(days=1))",
    ),
}


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_without_the_rule_the_oracle_disagrees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function, old, new = MUTATIONS[name]
    mutate(monkeypatch, function, old, new)

    with pytest.raises((AssertionError, ExceptionGroup)):
        check_worlds()


def test_with_every_rule_the_same_check_passes() -> None:
    check_worlds()


def check_worlds() -> None:
    for world in WORLDS.values():
        check(world)
    search = settings(
        max_examples=100, deadline=None, database=None, derandomize=True, phases=[Phase.generate]
    )
    search(given(worlds())(_check_anew))()


def _check_anew(world: World) -> None:
    """A function of its own: `given` marks what it is given."""
    check(world)


def test_only_keys_are_read_to_find_and_only_of_days_that_a_row_can_reach() -> None:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(60)]
    world = World(
        history(*(revision(day, 1, end_of(day, NEW_YORK), 1) for day in days)),
        [(1, end_of(days[20], NEW_YORK)), (1, end_of(days[50], NEW_YORK) + HOUR)],
        timedelta(days=2),
        kind="two columns",
    )
    slices, rows, spine = slices_of(world), Kept(world), spine_of(world)

    find(ask(spine.drop("at"), spine["at"]), slices, rows, world.ttl, readers=1)

    reached = [*days[16:21], *days[47:51]]
    assert [(day, 1, ("k", "shop")) for day in reached] == rows.read_columns


def test_values_are_read_of_the_wanted_columns_of_the_slices_that_were_hit_once() -> None:
    slices, rows, spine = slices_of(DROPPED), Kept(DROPPED), spine_of(DROPPED)
    hits = find(ask(spine.drop("at"), spine["at"]), slices, rows, None)
    rows.read_columns.clear()

    gather(hits, slices, rows, ["v"], TYPES, readers=1)

    hit = sorted({(slices[n].day, slices[n].revision, ("v",)) for n in hits.piece if n >= 0})
    assert hit == sorted(rows.read_columns)


def test_a_revision_that_no_row_of_the_spine_can_see_is_not_read() -> None:
    unseen = history(
        revision(DAYS[0], 1, FIRST, 1),
        revision(DAYS[0], 2, FIRST + HOUR, 1),
        revision(DAYS[0], 3, FIRST + 2 * HOUR, 1),
    )
    world = World(unseen, [(1, FIRST), (1, FIRST + 2 * HOUR)], None)
    rows, spine = Kept(world), spine_of(world)

    find(ask(spine.drop("at"), spine["at"]), slices_of(world), rows, None)

    assert {1, 3} == {number for _, number, _ in rows.read_columns}


def test_views_of_several_entities_share_the_order_of_time() -> None:
    spine = spine_of(BOUNDS)
    moments = Moments.among(spine["at"])

    shared = find(ask(spine.drop("at"), moments), slices_of(BOUNDS), Kept(BOUNDS), HOUR)

    np.testing.assert_array_equal(joined(BOUNDS)[0].piece, shared.piece)


def instants(*at: datetime) -> pl.Series:
    return pl.Series(at, dtype=pl.Datetime("us", "UTC"))


def nan(payload: int) -> float:
    found: float = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0000 + payload))[0]
    return found


EVERY_TYPE: dict[str, tuple[pl.DataType, list[Any]]] = {
    "i8": (pl.Int8(), [-128, None, 127]),
    "i16": (pl.Int16(), [-(2**15), None, 1]),
    "i32": (pl.Int32(), [2**31 - 1, None, 0]),
    "i64": (pl.Int64(), [2**53 + 1, None, -(2**63)]),
    "f32": (pl.Float32(), [0.1, None, float("nan")]),
    "f64": (pl.Float64(), [nan(1), None, -0.0]),
    "bool": (pl.Boolean(), [True, None, False]),
    "str": (pl.String(), ["", None, "é" * 40]),
    "bin": (pl.Binary(), [b"", None, b"\x00\xff"]),
    "date": (pl.Date(), [date(1, 1, 1), None, date(9999, 12, 31)]),
    "at": (pl.Datetime("us", "UTC"), [FIRST + MOMENT, None, FIRST]),
    "dec": (pl.Decimal(38, 9), [Decimal("0.000000001"), None, Decimal(10) ** 28]),
    "list": (pl.List(pl.Int32), [[1, None], None, []]),
    "nested": (pl.List(pl.List(pl.String)), [[["a"], None], None, [[]]]),
    "struct": (
        pl.Struct({"a": pl.Int8(), "b": pl.List(pl.Float64)}),
        [{"a": 1, "b": [nan(2), None]}, None, {"a": None, "b": None}],
    ),
}


class Files(Rows):
    """Slices as Parquet files, compressed as the lake's."""

    def __init__(self, folder: Path, frames: dict[date, pl.DataFrame]) -> None:
        self._folder = folder
        for day, frame in frames.items():
            frame.write_parquet(folder / f"{day}.parquet", compression="zstd")

    def read(self, piece: Slice, columns: Sequence[str]) -> pl.DataFrame:
        return pl.read_parquet(self._folder / f"{piece.day}.parquet", columns=list(columns))


def test_every_type_comes_back_bit_for_bit(tmp_path: Path) -> None:
    types = {name: dtype for name, (dtype, _) in EVERY_TYPE.items()}
    columns = {name: cells for name, (_, cells) in EVERY_TYPE.items()}
    one = pl.DataFrame({"k": [1, 2, 3], **columns}, schema={"k": pl.Int64(), **types})
    two = one.with_columns(k=pl.Series([4, 5, 6]))
    days = {day: revision(day, 1, end_of(day, NEW_YORK), 1, 2, 3) for day in DAYS[:2]}
    slices = event_slices(days, NEW_YORK)
    rows = Files(tmp_path, {DAYS[0]: one, DAYS[1]: two})
    wanted = [6, 1, 9, 3, 3, 4, 2, 5, 1]
    asked = ask(
        pl.DataFrame({"k": wanted}), pl.Series([SECOND] * 9, dtype=pl.Datetime("us", "UTC"))
    )

    found = gather(find(asked, slices, rows, None), slices, rows, list(types), types)

    stored = pl.concat(
        [one, two, pl.DataFrame({"k": [9]}, schema={"k": pl.Int64()})], how="diagonal"
    )
    expected = stored[[5, 0, 6, 2, 2, 3, 1, 4, 0]].drop("k")
    assert types == dict(found.schema)
    assert_frame_equal(expected, found, check_exact=True)
    for name in ("f32", "f64"):
        bits = np.uint32 if name == "f32" else np.uint64
        filled = [frame[name].fill_null(0).to_numpy().view(bits) for frame in (expected, found)]
        np.testing.assert_array_equal(*filled)
    inner = [frame["struct"].struct.field("b").explode() for frame in (expected, found)]
    np.testing.assert_array_equal(*(s.fill_null(0).to_numpy().view(np.uint64) for s in inner))


def test_a_feature_that_no_revision_has_is_null() -> None:
    world = replace(GROWN, history=history(revision(DAYS[0], 1, FIRST, 1, extra=None)))

    assert [None, None, 11.0] != joined(world)[1]["late"].to_list()
    assert joined(world)[1]["late"].null_count() == len(world.asked)


def test_a_feature_of_another_type_is_refused_naming_the_day_and_both_types() -> None:
    world = replace(GROWN, history=history(revision(DAYS[0], 1, FIRST, 1, extra="String")))

    with pytest.raises(StoreError, match=r"'late' of 2026-03-06 .*Expected Int64, got String"):
        joined(world)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (pl.Series("k", ["1"]), r"'k'.*Expected Int64, got String.*cast\(pl.Int64\)"),
        (pl.Series("k", [1.0]), r"'k' is Float64.*whole numbers, text, or dates"),
        (pl.Series("k", [date(2026, 1, 1)]), r"'k'.*Expected Int64, got Date"),
    ],
)
def test_a_key_of_another_type_is_refused(wrong: pl.Series, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(ask(wrong.to_frame(), instants(LATE)), slices_of(BOUNDS), Kept(BOUNDS), None)


def test_a_narrower_whole_number_is_the_same_key() -> None:
    key = pl.DataFrame({"k": [KINDS["whole numbers"][1](1)[0]]}, schema={"k": pl.Int8()})

    found = find(ask(key, instants(FIRST)), slices_of(BOUNDS), Kept(BOUNDS), None)

    assert [0] == found.piece.tolist()


@pytest.mark.parametrize("at", [pl.Series([1.0]), pl.Series([LATE], dtype=pl.Datetime("ms"))])
def test_a_timestamp_that_is_no_instant_is_refused(at: pl.Series) -> None:
    with pytest.raises(InputError, match="The spine's timestamps are"):
        ask(pl.DataFrame({"k": [1]}), at)


def test_a_view_without_key_columns_is_refused() -> None:
    with pytest.raises(InputError, match="no key columns"):
        ask(pl.DataFrame(), pl.Series([1]))


def test_what_a_reader_raises_reaches_the_caller() -> None:
    class Gone(Kept):
        def read(self, piece: Slice, columns: Sequence[str]) -> pl.DataFrame:
            raise StoreError(f"{columns} of {piece.day} are gone.")

    spine = spine_of(BOUNDS)
    for readers in (1, 2):
        with pytest.raises(StoreError, match=r"'k'.* of 2026-03-06 are gone"):
            find(
                ask(spine.drop("at"), spine["at"]),
                slices_of(BOUNDS),
                Gone(BOUNDS),
                None,
                readers=readers,
            )


def test_the_mutations_change_plain_functions() -> None:
    assert all(isinstance(function, FunctionType) for function, *_ in MUTATIONS.values())
