"""Training and serving answer in the order that was asked for: a model may go by position."""

from pathlib import Path

import polars as pl

from tests.scenario import START, instant, world

ASKED = ["profile:country", "spend_3d:events_3d", "pace:per_event", "spend_3d:amount_3d"]


def test_columns_come_in_the_asked_order_even_where_views_alternate(
    tmp_path: Path, redis_url: str
) -> None:
    made = world(tmp_path, redis_url=redis_url)
    spine = pl.DataFrame({"label": [1], "user_id": [1], "at": [instant(START, 12)]})

    trained = made.store.training_set(spine, iter(ASKED), timestamp="at").frame
    served = made.store.online(iter(ASKED), [{"user_id": 1}])

    assert trained.columns == ["label", "user_id", "at", *ASKED]
    assert list(served.features) == ASKED
    assert served.to_frame().columns == ["user_id", *ASKED]
