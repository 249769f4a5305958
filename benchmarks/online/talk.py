"""A process that answers questions: one JSON object per line in, one per line out."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def answer(commands: Mapping[str, Callable[..., Any]]) -> None:
    """Answer questions on standard input until it ends.

    A question names a command under "do" and its arguments. Answers go to what was standard
    output; whatever a library prints goes to standard error.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            said = {"ok": commands[question.pop("do")](**question)}
        except Exception:  # noqa: BLE001 - whatever went wrong is told to the one who asked
            said = {"error": traceback.format_exc()[-2000:]}
        out.write(json.dumps(said) + "\n")
        out.flush()
