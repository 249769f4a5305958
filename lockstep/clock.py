"""The one place that asks what time it is; everything else is passed the instant."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present instant, in UTC."""
    return datetime.now(UTC)
