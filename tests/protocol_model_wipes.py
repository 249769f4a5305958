"""A wipe in the model: which call comes next, one by one."""

from typing import NamedTuple

from tests.protocol_model_rules import Bucket, Rules, Step, wipe


class Wiper(NamedTuple):
    """A wipe under way: the calls to come, and what the answered ones said."""

    number: int
    table: int
    own_rows_too: bool
    eras: tuple[int, ...] = ()
    done: int = 0
    found: tuple[tuple[int, ...], ...] = ()


def next_turn(wiper: Wiper, count: int) -> tuple[str, int]:
    """What comes next, and on which bucket."""
    if wiper.done < count:
        return "begin", wiper.done
    if wiper.done < 3 * count:
        number, removing = divmod(wiper.done - count, 2)
        return ("rows" if removing else "scan"), number
    return "finish", wiper.done - 3 * count


def next_step(wiper: Wiper, kind: str, number: int) -> Step:
    """The call that comes next."""
    if kind == "begin":
        return Step(wiper.number, number, kind, wiper.table, own_rows_too=wiper.own_rows_too)
    era, found = wiper.eras[number], wiper.found[number]
    if kind == "rows":
        return Step(wiper.number, number, kind, wiper.table, era, 1, found)
    return Step(wiper.number, number, kind, wiper.table, era, 2 if found else 1)


def wiped(bucket: Bucket, table: int, rules: Rules, era: int) -> Bucket:
    """The bucket after a whole wipe that nothing disturbed."""
    places = tuple(range(len(bucket.rows)))
    begun, found = wipe(bucket, Step(-1, 0, "begin", table), rules, era)
    rows, _ = wipe(begun, Step(-1, 0, "rows", table, found or 0, 1, places), rules, era)
    return wipe(rows, Step(-1, 0, "finish", table, found or 0, 2), rules, era)[0]
