"""Entities, sources and feature views of the reference project; one file is one view."""
