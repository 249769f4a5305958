"""Training sets beside their peers, in one run on one machine: `python -m benchmarks.training`.

Every contender joins the same features to the same spine, from files to a frame, alone in a
process of its own that lives for one join; rounds alternate between contenders; medians over
rounds are reported. Modules whose name ends in `_worker` are those processes. `feast_worker` runs
in Feast's own environment, so it and what it imports (`benchmarks.timing`) need nothing of this
project's.
"""
