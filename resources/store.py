"""The project as Dagster's assets, checks and sensors see it."""

from functools import cache

import boto3
import dagster as dg
from dagster_aws.s3 import S3Resource

from lockstep.project import find_project
from lockstep.store import Store


class StoreResource(dg.ConfigurableResource[Store]):
    """Opens the project: the lake, the landing zone and the online store.

    On `s3://…` the credentials and the endpoint are those of the S3 resource; what it leaves out
    comes from the standard AWS environment variables.
    """

    folder: str
    s3: dg.ResourceDependency[S3Resource]

    def open(self) -> Store:
        """Return the store; nothing is contacted before its first use."""
        return _opened(self.folder, tuple(sorted(_aws_settings(self.s3).items())))


@cache
def _opened(folder: str, settings: tuple[tuple[str, str], ...]) -> Store:
    """One store per process, so that connections and imports are shared by the assets of a run."""
    return Store(find_project(folder), options=dict(settings))


def _aws_settings(s3: S3Resource) -> dict[str, str]:
    named = {
        "AWS_ALLOW_HTTP": None if s3.use_ssl else "true",
        "AWS_ACCESS_KEY_ID": s3.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": s3.aws_secret_access_key,
        "AWS_SESSION_TOKEN": s3.aws_session_token,
        "AWS_REGION": s3.region_name,
        "AWS_ENDPOINT_URL": s3.endpoint_url,
    }
    return _of_profile(s3.profile_name) | {name: value for name, value in named.items() if value}


def _of_profile(name: str | None) -> dict[str, str]:
    """Return the credentials that a named profile gives now; those of a role are renewed."""
    if name is None:
        return {}
    session = _session(name)
    credentials = session.get_credentials()
    found = credentials.get_frozen_credentials() if credentials else None
    named = {
        "AWS_ACCESS_KEY_ID": found and found.access_key,
        "AWS_SECRET_ACCESS_KEY": found and found.secret_key,
        "AWS_SESSION_TOKEN": found and found.token,
        "AWS_REGION": session.region_name,
    }
    return {key: value for key, value in named.items() if value}


@cache
def _session(profile: str) -> boto3.session.Session:
    return boto3.session.Session(profile_name=profile)
