"""2 a.m., replayed on the real data: one thing is broken at a time, and the platform has to say so.

Everything happens in one process, on a copy of a lake, with the functions that Dagster's assets and
sensors call, an online server of its own and a clock that is passed in.
"""
