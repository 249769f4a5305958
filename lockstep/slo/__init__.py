"""Objectives of the contracts as Prometheus rules, a Grafana dashboard and a runbook index."""
