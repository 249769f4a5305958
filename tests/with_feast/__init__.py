"""Checks that need Feast installed; not part of the default run (docs/serving.md says how)."""
