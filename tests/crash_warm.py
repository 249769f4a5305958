"""Imports what a killed process needs, so that forks of it start at once; starts no threads."""

from lockstep.soda import _soda
from tests import crash_story

_soda()

__all__ = ["crash_story"]
