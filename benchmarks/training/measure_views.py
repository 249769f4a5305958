"""How the time grows with the number of views."""

from typing import Any

from benchmarks.timing import middle
from benchmarks.training import children, data
from benchmarks.training.bench import Bench


def views(bench: Bench) -> dict[str, dict[str, Any]]:
    """Number of views → medians; the same spine for all."""
    shape = bench.sizes.wide
    rounds: dict[int, list[dict[str, Any]]] = {number: [] for number in bench.sizes.views}
    for turn in range(bench.sizes.rounds):
        for number, taken in rounds.items():
            bench.say(f"{number} views, round {turn + 1}")
            asked = data.asked(shape, number)
            found = bench.ours(shape, label=f"{number}-views", features=asked)
            taken.append(children.require(found, f"{number} views"))
    return {str(number): middle(taken) for number, taken in rounds.items()}
