"""The report and the summary of a set whose values are hardly ever there."""

from pathlib import Path

import polars as pl
import pytest

from feature_assets.training_sets.shown import profile_table
from lockstep.cli.set_summary import show_profile
from lockstep.time import as_of
from lockstep.training.profile import SAMPLE
from lockstep.training.report import html_report
from tests.scenario import ZONE
from tests.training_world import BIG, DAYS, spine_of, training_world


def test_a_feature_whose_few_values_the_sample_does_not_meet_is_shown_without_a_median(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, at = training_world(tmp_path), as_of(DAYS[3], ZONE)
    others = spine_of([(99, "a", at)]).select(pl.all().repeat_by(2 * SAMPLE).explode())
    # Every third row is in the sample, the second is not.
    spine = pl.concat([others.head(1), spine_of([(BIG, "a", at)]), others])

    found = made.store.training_set(spine, ["usage:amount"], timestamp="at")
    page = html_report(found.manifest, found.profile)
    show_profile(found.profile, hidden=())

    assert (3.0, ()) == (
        found.profile["usage:amount"].values.minimum,
        tuple(found.profile["usage:amount"].values.sketch),
    )
    assert "min 3, mean 3, max 3" in page
    assert "nothing to draw" in page
    assert "3 … " in capsys.readouterr().out
    (record,) = profile_table(found.profile, made.store.catalog).records
    assert "3" in str(record.data["values"])
