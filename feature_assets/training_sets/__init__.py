"""Training sets as an asset; empty here, as the views package is imported without Dagster."""
