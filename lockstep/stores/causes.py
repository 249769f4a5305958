"""Why a store failed, in one line without credentials, and what to do about it.

An S3 error body repeats the headers of the request it refuses, a session token among them, and
the libraries put that body into their messages. So their errors are neither shown nor chained:
Dagster would store the chain in its event log.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lockstep.errors import StoreError

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_BODY: Final = re.compile(r"<\?xml|<Error|<html", re.IGNORECASE)
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_USER: Final = re.compile(r"//[^/@\s]+@")
_LONGEST: Final = 300

_FIXES: Final = (
    (
        r"NoSuchBucket|InvalidBucketName",
        "Create the bucket, or correct the place: LOCKSTEP_ROOT, or `root` in [tool.lockstep].",
    ),
    (
        r"\b40[13]\b|AccessDenied|InvalidAccessKey|Signature|Expired|InvalidToken|Credential",
        "Check the credentials (AWS_ACCESS_KEY_ID and so on, or the S3 resource) and their rights.",
    ),
    (
        r"onnect|tim(ed|e) ?out|dns|error sending request|SSL",
        "Check the endpoint (AWS_ENDPOINT_URL, or the S3 resource) and that the store answers.",
    ),
)
_ANY_FIX: Final = "Remove the cause and run again: what is certified already is recognized."


def cause_of(error: BaseException) -> str:
    """Return the type and message of an error in one line, without the body of an answer."""
    text = _COLOUR.sub("", str(error)).replace("↳", " ")
    body = _BODY.search(text)
    if body is not None:
        code = _CODE.search(text, body.start())
        text = (f"{code[1]}: " if code else "") + text[: body.start()]
    line = _USER.sub("//…@", " ".join(text.split())).strip(" :")
    return f"{type(error).__name__}: {line[:_LONGEST]}" if line else type(error).__name__


def fix_of(cause: str) -> str:
    """Return what to do about a cause."""
    return next((fix for pattern, fix in _FIXES if re.search(pattern, cause)), _ANY_FIX)


def not_answered(error: BaseException) -> bool:
    """Return whether an error of Polars says that the store did not answer, not what it holds."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


def store_failed(what: str, error: BaseException) -> StoreError:
    """Return the error about a table or place whose store failed; raise it `from None`."""
    cause = cause_of(error)
    return StoreError(f"{what} could not be read or written.", got=cause, fix=fix_of(cause))


@contextmanager
def answering(what: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn an OSError (as Polars raises about a store) and errors of `kinds` into a StoreError.

    Args:
        what: The table or place, as the subject of a sentence.
        kinds: What else the library at work raises.
    """
    expected: tuple[type[Exception], ...] = (OSError, *kinds)
    try:
        yield
    except expected as error:
        raise store_failed(what, error) from None
