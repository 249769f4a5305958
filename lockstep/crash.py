"""Named crash points: the places at which a test kills the process to prove that a rerun completes.

They do nothing unless `LOCKSTEP_TESTING=1`. Then `LOCKSTEP_CRASH=committed` kills the process
(SIGKILL, as the kernel would) the first time it reaches that point, `LOCKSTEP_CRASH=committed:3`
the third time.
"""

import os
import signal
from collections import Counter
from typing import Final, Literal, get_args

CrashPoint = Literal[
    "computed",  # frame computed and audited, nothing written
    "quarantining",  # quarantined frame written, its marker not
    "committed",  # Delta committed; superseded rows not copied, ledger not
    "kept",  # superseded rows copied, ledger not
    "recorded",  # ledger and profiles written, nothing pushed
    "mid_push",  # some chunks of a push arrived
    "pushed",  # all rows arrived, the last bucket not sealed
    "sealed",  # everything done, nobody told
]
CRASH_POINTS: Final[tuple[CrashPoint, ...]] = get_args(CrashPoint)
TrainingPoint = Literal[
    "set_planned",  # the spine and its parts are written, nothing is joined
    "set_joined",  # a part is joined
    "set_written",  # data and spine are written, the manifest is not
    "set_kept",  # the lake keeps it, the file elsewhere is not in place
    "set_exported",  # the file elsewhere is in place, the manifest beside it is not
    "set_beside",  # both are in place, the profile is not recorded
]
TRAINING_POINTS: Final[tuple[TrainingPoint, ...]] = get_args(TrainingPoint)

_reached: Counter[str] = Counter()


def crash_point(name: CrashPoint | TrainingPoint) -> None:
    """Kill this process here if a test asked for it; otherwise do nothing."""
    if os.environ.get("LOCKSTEP_TESTING") != "1":
        return
    wanted, _, nth = os.environ.get("LOCKSTEP_CRASH", "").partition(":")
    if wanted != name:
        return
    _reached[name] += 1
    if _reached[name] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
