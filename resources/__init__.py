"""Configuration only: each resource builds a plain client of `lockstep`."""
