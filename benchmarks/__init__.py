"""Measurements: scripts with fixed seeds that print a table and write JSON."""
