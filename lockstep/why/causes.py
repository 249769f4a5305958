"""One named cause from the facts: rules in order, the first that applies names it. Pure.

The order follows what a reader sees. A table that refuses its contract can be compared with
nothing. Then the way to Redis: where online differs from offline, that is the cause, whatever else
is wrong with the data. Then the data: what broke it comes before what followed from that (a shifted
source before the quarantine that caught it), what holds a day back before a day that nobody
computed. `ORDER` is that precedence; docs/how-to-why.md explains it.
"""

from collections.abc import Sequence
from typing import Final

from lockstep.why.data_rules import (
    as_it_should_be,
    code_changed,
    contract_changed,
    data_late,
    file_refused,
    frame_quarantined,
    never_computed,
    outlived,
    times_shifted,
)
from lockstep.why.facts import Facts
from lockstep.why.found import Cause, Found, Rule
from lockstep.why.online_rules import (
    bucket_lost,
    correction_waits,
    push_interrupted,
    redis_behind,
    redis_down,
    row_changed,
    row_gone,
    stored_schema,
)

__all__ = ["ORDER", "Cause", "Found", "named"]

_ON_THE_WAY: Final[Sequence[Rule]] = (
    stored_schema,
    bucket_lost,
    push_interrupted,
    correction_waits,
    redis_behind,
    row_gone,
    row_changed,
)
"""Of these at most the first that applies is told: the others would say the same in other words."""

_IN_THE_DATA: Final[Sequence[Rule]] = (
    times_shifted,
    file_refused,
    frame_quarantined,
    data_late,
    code_changed,
    never_computed,
    redis_down,
    outlived,
)

ORDER: Final[Sequence[Rule]] = (contract_changed, *_ON_THE_WAY, *_IN_THE_DATA)


def named(facts: Facts) -> tuple[Found, list[Found]]:
    """Return the cause, and what else applies, in order of precedence."""
    refused = contract_changed(facts)
    on_the_way = next((each for rule in _ON_THE_WAY if (each := rule(facts))), None)
    found = [each for each in (refused, on_the_way) if each is not None]
    found += [each for rule in _IN_THE_DATA if (each := rule(facts)) is not None]
    first, *others = found or [as_it_should_be(facts)]
    return first, [each for each in others if each.cause != first.cause]
