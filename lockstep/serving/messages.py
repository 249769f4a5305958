"""What the service tells its operator: a line per event, on stderr."""

import logging
import sys
from typing import Final

LOGGER: Final = logging.getLogger("lockstep.serving")
_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


def configure_logging() -> None:
    """Log to stderr, a line per event; what uvicorn says of single requests is left out."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=_FORMAT)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
