"""Erasure of one entity, from everything that holds it."""
