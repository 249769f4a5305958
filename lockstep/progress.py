"""What a run tells the terminal that started it, a JSON line per event.

`LOCKSTEP_PROGRESS` names the file. Without it nothing is written: Dagster's own log has it all.
"""

import json
import os
from pathlib import Path
from typing import Any


def report(event: str, **facts: Any) -> None:
    """Append one event; short enough for the write to be atomic."""
    path = os.environ.get("LOCKSTEP_PROGRESS")
    if not path:
        return
    line = json.dumps({"event": event, **facts}, default=str) + "\n"
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(line)
