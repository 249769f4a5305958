# %% [markdown]
# # Who stops buying? From a training set to a served prediction
#
# Needs the data of `make demo`, and its server: `lockstep up`. Open it as a notebook (VS Code,
# PyCharm and Jupytext read the cells) or run it: `.venv/bin/python examples/churn.py`.

# %%
from datetime import UTC, timedelta

import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

import lockstep
from lockstep.time import as_of, last_full_day

FEATURES = "churn_v1"
store = lockstep.open()
last = last_full_day(store.now(), store.project.zone)

# %% [markdown]
# ## The spine: what I want to know, and when I would have asked
#
# A household that bought in the thirty days before a cut is asked about nine hours after it. It
# churned if it has no basket in the two weeks that follow.

# %%
AHEAD = timedelta(days=14)
baskets = (
    store.lake.table(store.catalog.source("transactions"))
    .scan()
    .select("household_id", "event_time")
)


def asked_at(days_ago: int) -> pl.LazyFrame:
    """Return the households to ask about so many days ago, each with its label."""
    at = as_of(last - timedelta(days=days_ago), store.project.zone) + timedelta(hours=9)
    before = baskets.filter(pl.col("event_time").is_between(at - timedelta(days=30), at))
    after = baskets.filter(pl.col("event_time").is_between(at, at + AHEAD))
    stays = after.select("household_id", churned=pl.lit(value=False)).unique()
    return (
        before.select("household_id")
        .unique()
        .join(stays, on="household_id", how="left")
        .select(
            "household_id",
            pl.lit(at, dtype=pl.Datetime("us", "UTC")).alias("event_timestamp"),
            pl.col("churned").fill_null(value=True),
        )
        .sort("household_id")
    )


spine = pl.concat([asked_at(45), asked_at(30), asked_at(15)]).collect()
asked = spine.group_by("event_timestamp", maintain_order=True)
print(asked.agg(pl.len(), pl.col("churned").mean()))

# %% [markdown]
# ## The training set: each feature as it was when I would have asked

# %%
training = store.training_set(spine, FEATURES)
for warning in training.warnings:
    print("Mind:", warning)
print(training.frame.head())

# %% [markdown]
# ## The model: learn from the older cuts, judge on the newest

# %%
newest = spine["event_timestamp"].max()
learn = training.frame.filter(pl.col("event_timestamp") < newest)
judge = training.frame.filter(pl.col("event_timestamp") == newest)


def inputs(frame: pl.DataFrame):
    """Return the features as the model takes them: in the set's order, null as NaN."""
    numbers = pl.col(training.features).cast(pl.Float64)
    return frame.select(numbers.fill_null(float("nan"))).to_numpy()


model = HistGradientBoostingClassifier(max_iter=40, max_depth=3, random_state=7)
model.fit(inputs(learn), learn["churned"])
chance = model.predict_proba(inputs(judge))[:, 1]
print(f"AUC on {judge.height} households: {roc_auc_score(judge['churned'], chance):.3f}")

# %% [markdown]
# ## The prediction: the same features from the online store
#
# The vector of a household is what a training set asked for right now would hold: same features in
# the same order, same values. The model can't tell where its input came from.

# %%
households = judge["household_id"].sample(5, seed=7).sort()
vectors = store.online(FEATURES, {"household_id": households.to_list()}).to_frame()

now = pl.lit(store.now().astimezone(UTC), dtype=pl.Datetime("us", "UTC"))
today = households.to_frame().with_columns(now.alias("event_timestamp"))
same = store.training_set(today, FEATURES).frame.drop("event_timestamp")
assert vectors.equals(same), "Online and offline differ: lockstep parity says where."

for household, risk in zip(households, model.predict_proba(inputs(vectors))[:, 1], strict=True):
    print(f"Household {household} churns with a probability of {risk:.0%}.")
