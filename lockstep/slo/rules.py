"""Every rule of a project, and the file that Prometheus reads."""

from typing import Final

from lockstep.slo.alerting import Alerting
from lockstep.slo.budget_rules import budgets, recorded_windows
from lockstep.slo.objectives import Objectives
from lockstep.slo.rule_file import Group, rule_file
from lockstep.slo.state_rules import data_state, recorded_state, service_state

HEADER: Final = (
    "Rules for Prometheus, written by `lockstep slo export` from the contracts of the feature "
    "views: edit those, not this file.\n"
    "They read what `lockstep serve` tells at /metrics. docs/how-to-slo.md says more."
)


def groups(objectives: Objectives, alerting: Alerting) -> list[Group]:
    """Return the rules in groups: what is recorded, then what somebody is told."""
    return [
        recorded_windows(objectives),
        recorded_state(objectives),
        budgets(objectives, alerting),
        data_state(objectives, alerting),
        service_state(objectives.service, alerting),
    ]


def rules(objectives: Objectives, alerting: Alerting) -> str:
    """Return the file of all rules."""
    return rule_file(groups(objectives, alerting), HEADER)
