"""View → Dagster asset checks: the audits of each day, and checks on the state of the world."""
