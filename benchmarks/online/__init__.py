"""The online side beside its peers, in one run on one machine: `python -m benchmarks.online`.

Every contender does the same work on the same rows against servers with the same settings, in a
process of its own; rounds alternate between contenders; medians over rounds are reported. Modules
whose name ends in `_worker` are those processes. `feast_worker` runs in Feast's own environment,
so it and what it imports (`talk`, `timing`, `type_cases`) need nothing of this project's.
"""
