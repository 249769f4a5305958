"""A process of its own that materializes and pushes days which fail their audit; it may be killed.

python -m tests.failing_rerun FOLDER REDIS_URL NAMESPACE NOW FILL_RATE FIRST LAST
"""

import sys
from datetime import date, datetime
from pathlib import Path

from lockstep.errors import NotCertifiedError
from tests.scenario import Clock, make_views, world

PUSHED = 3
"""Exit status if the push of a day that failed was not refused."""


def main(
    folder: str, redis_url: str, namespace: str, now: str, fill_rate: str, first: str, last: str
) -> int:
    views = make_views(fill_rate=float(fill_rate))
    clock = Clock(datetime.fromisoformat(now))
    made = world(Path(folder), redis_url=redis_url, namespace=namespace, views=views, now=clock)
    made.build(views.spend_3d, date.fromisoformat(first), date.fromisoformat(last))
    made.push(views.spend_3d)
    try:
        made.push(views.spend_3d, [date.fromisoformat(last)])
    except NotCertifiedError:
        return 0
    return PUSHED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
