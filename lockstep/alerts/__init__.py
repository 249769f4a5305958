"""What is wrong, told to whoever answers for it: once, grouped, and again when it has healed.

`look` reads the lake and Redis and says which problems there are. `fold` turns that into episodes:
what began, what goes on, what is over. `deliver` tells each receiver what it was not told yet, and
keeps in the lake what it was told.
"""

from lockstep.alerts.problem import KINDS, Kind, Problem, Severity, runbook

__all__ = ["KINDS", "Kind", "Problem", "Severity", "runbook"]
