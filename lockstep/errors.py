"""One family of errors; every message says culprit, expected and got, the fix, and the effect.

LockstepError
├── ConfigError            a setting is missing or wrong
├── DeclarationError       a view, source or feature set is declared wrongly (all problems at once)
├── InputError             data or a request from outside breaks a declared promise
│   ├── UnknownNameError       no view, feature, source or feature set of that name
│   └── MissingFeatureError    `on_missing="fail"` and a cell has no value
├── IncompleteWindowError  a day cannot be computed yet: days of its window are missing
├── NotCertifiedError      a day is not committed in Delta, so it may not be served
├── ContractChangedError   a table was built by another contract than the one declared now
├── ConflictError          somebody else wrote first and the retries are used up
├── StoreError             the offline store refuses or is damaged
└── OnlineError            the online store refuses or does not answer
    └── PushFailedError        a push ended early; carries the receipt of what was acknowledged
"""

from collections.abc import Mapping, Sequence
from typing import Any


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says, or the name of its error if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class LockstepError(Exception):
    """A sentence built from its parts, so that no message forgets one of them.

    Args:
        culprit: What is wrong, naming the object, as a full sentence.
        expected: What was declared or needed (without a full stop).
        got: What was found instead (without a full stop).
        fix: What the reader should do, as a full sentence.
        effect: What was or was not written, as a full sentence.
    """

    def __init__(
        self,
        culprit: str,
        *,
        expected: str | None = None,
        got: str | None = None,
        fix: str | None = None,
        effect: str | None = None,
    ) -> None:
        self.culprit = culprit
        self.expected = expected
        self.got = got
        self.fix = fix
        self.effect = effect
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        parts = [self.culprit]
        if self.expected is not None and self.got is not None:
            parts.append(f"Expected {self.expected}, got {self.got}.")
        elif self.expected is not None:
            parts.append(f"Expected {self.expected}.")
        elif self.got is not None:
            parts.append(f"Got {self.got}.")
        parts += [part for part in (self.fix, self.effect) if part]
        return " ".join(parts)


class LockstepWarning(UserWarning):
    """Something a caller should know although the call did what was asked."""


class ConfigError(LockstepError):
    """A setting is missing or wrong."""


class DeclarationError(LockstepError):
    """Every problem of one declaration, a paragraph each.

    Args:
        problems: One message per problem, each with its own fix.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n\n".join(problems))


class InputError(LockstepError):
    """Data or a request from outside breaks a declared promise."""


class UnknownNameError(InputError):
    """No view, feature, source or feature set has that name."""


class MissingFeatureError(InputError):
    """`on_missing="fail"` was asked for and a cell has no value.

    Attributes:
        missing: Entity, feature and status of every cell that has none.
    """

    def __init__(
        self,
        culprit: str,
        *,
        fix: str | None = None,
        missing: Sequence[tuple[Mapping[str, Any], str, str]] = (),
    ) -> None:
        self.missing = missing
        super().__init__(culprit, fix=fix)


class IncompleteWindowError(LockstepError):
    """A day cannot be computed yet, because days of its window are missing."""


class NotCertifiedError(LockstepError):
    """A day is not committed in Delta, so it may not be served."""


class ContractChangedError(LockstepError):
    """A table was built by another contract than the one declared now."""


class ConflictError(LockstepError):
    """Somebody else wrote first, and the retries are used up."""


class StoreError(LockstepError):
    """The offline store refuses the operation, or what it holds is damaged."""


class OnlineError(LockstepError):
    """The online store refuses the operation or does not answer."""


class PushFailedError(OnlineError):
    """A push ended before its seals.

    Attributes:
        receipt: What was acknowledged and how many rows were sent without an answer
            (`lockstep.layout.Receipt`).
    """

    receipt: object = None
