"""The S3 side of `lockstep.stores.files`; boto3 is imported when the first request is made."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from lockstep.errors import StoreError
from lockstep.stores.causes import fix_of
from lockstep.stores.files import FileInfo, Place, checked

_MISSING: Final = frozenset({"NoSuchKey", "404", "NotFound"})
CONNECTIONS: Final = 16
_TAKEN: Final = frozenset({"PreconditionFailed", "412"})


def s3_place(bucket: str, prefix: str, options: dict[str, str]) -> Place:
    """Return a prefix of a bucket; `open_place` knows the options."""
    return _S3Place(bucket, prefix, options)


class _S3Place(Place):
    def __init__(self, bucket: str, prefix: str, options: dict[str, str]) -> None:
        self._bucket, self._prefix = bucket, prefix
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self.options = options

        self._client = _shared_client(tuple(sorted(options.items())))

    def join(self, name: str) -> Place:
        return _S3Place(self._bucket, self._key(name), self.options)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{checked(name)}" if self._prefix else checked(name)

    def list(self, folder: str = "") -> list[FileInfo]:
        start = f"{self._prefix}/" if self._prefix else ""
        prefix = f"{start}{checked(folder)}/" if folder else start
        found = []
        with self._reporting(folder):
            pages = self._client.get().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    modified = int(item["LastModified"].timestamp() * 1_000_000) * 1000
                    name = item["Key"].removeprefix(start)
                    found.append(FileInfo(name, item["Size"], modified, item["ETag"].strip('"')))
        return sorted(found, key=lambda info: info.path)

    def read_if_exists(self, name: str) -> bytes | None:
        with self._reporting(name, missing_ok=True):
            reply = self._client.get().get_object(Bucket=self._bucket, Key=self._key(name))
            content: bytes = reply["Body"].read()
            return content
        return None

    def write(self, name: str, data: bytes) -> None:
        with self._reporting(name):
            self._client.get().put_object(Bucket=self._bucket, Key=self._key(name), Body=data)

    def write_if_absent(self, name: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        with self._reporting(name):
            try:
                self._client.get().put_object(
                    Bucket=self._bucket, Key=self._key(name), Body=data, IfNoneMatch="*"
                )
            except ClientError as error:
                if error.response["Error"]["Code"] not in _TAKEN:
                    raise
                # The client repeats a PUT whose reply was lost; the repetition meets our own file.
                return self.read_if_exists(name) == data
        return True

    def upload(self, name: str, file: Path) -> None:
        with self._reporting(name):  # in pieces, so that a large file needs little memory
            self._client.get().upload_file(str(file), self._bucket, self._key(name))

    def download(self, name: str, file: Path) -> None:
        with self._reporting(name):
            self._client.get().download_file(self._bucket, self._key(name), str(file))

    def exists(self, name: str) -> bool:
        with self._reporting(name, missing_ok=True):
            self._client.get().head_object(Bucket=self._bucket, Key=self._key(name))
            return True
        return False

    def delete(self, name: str) -> None:
        with self._reporting(name):
            self._client.get().delete_object(Bucket=self._bucket, Key=self._key(name))

    @contextmanager
    def _reporting(self, name: str, *, missing_ok: bool = False) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        try:
            yield
        except (ClientError, BotoCoreError, HTTPClientError, Boto3Error) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
            if missing_ok and code in _MISSING:
                return
            got = f"{type(error).__name__} {code}".rstrip()
            raise StoreError(
                f"The object {self.uri}/{name} could not be read or written.",
                got=got,
                fix=fix_of(got),
                effect="Whether a write arrived is unknown: a rerun finds out and completes it.",
            ) from None  # the answer may repeat credentials


@cache
def _shared_client(options: tuple[tuple[str, str], ...]) -> "_Client":
    """One client per settings: making one takes longer than most requests, and has its own pool."""
    return _Client(dict(options))


class _Client:
    """One boto3 client, made at first use: importing boto3 takes longer than most commands."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._made: Any = None

    def get(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": 4},
            # Checksums in trailers are unknown to many S3-compatible stores.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return boto3.session.Session().client(
            "s3",
            region_name=self._options["AWS_REGION"],
            endpoint_url=self._options.get("AWS_ENDPOINT_URL"),
            aws_access_key_id=self._options.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=self._options.get("AWS_SECRET_ACCESS_KEY"),
            aws_session_token=self._options.get("AWS_SESSION_TOKEN"),
            config=config,
        )
