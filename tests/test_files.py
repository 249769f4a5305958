"""`Place` on the local disk and on S3: the same promises, tested by the same tests."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lockstep.errors import ConfigError, StoreError
from lockstep.stores.files import AWS_VARIABLES, Place, open_place, probe_conditional_put
from tests.s3_server import BUCKET, S3, Faults, faulty


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_store: S3) -> Place:
    if request.param == "local":
        return open_place(str(tmp_path / "my lake"))
    return open_place(f"s3://{BUCKET}/{tmp_path.name}/my lake", s3_store.options)


def test_a_written_file_is_read_back_and_listed(place: Place) -> None:
    place.write("a/b.bin", b"\x00\xff")

    assert place.read("a/b.bin") == b"\x00\xff"
    assert place.exists("a/b.bin")
    assert [(info.path, info.size) for info in place.list()] == [("a/b.bin", 2)]


def test_writing_replaces_the_whole_file(place: Place) -> None:
    place.write("x", b"a longer first version")

    place.write("x", b"short")

    assert place.read("x") == b"short"


def test_a_missing_file_is_none_or_an_error_that_names_it(place: Place) -> None:
    assert place.read_if_exists("no/such") is None
    assert not place.exists("no/such")
    with pytest.raises(StoreError, match=r"my lake/no/such does not exist"):
        place.read("no/such")


def test_a_folder_is_not_a_file(place: Place) -> None:
    place.write("folder/file", b"")

    assert not place.exists("folder")
    assert place.read("folder/file") == b""


def test_listing_a_missing_folder_is_empty(place: Place) -> None:
    assert place.list() == []
    assert place.list("nothing/here") == []


def test_a_listing_is_recursive_sorted_and_stays_in_its_folder(place: Place) -> None:
    for name in ("in/b", "in/a/deep", "inner/c", "in.txt"):
        place.write(name, b"1")

    assert [info.path for info in place.list("in")] == ["in/a/deep", "in/b"]


def test_a_listed_path_can_be_read_by_the_same_place(place: Place) -> None:
    place.write("odd/ä file %20 +.csv", b"1")

    (info,) = place.list("odd")

    assert info.path == "odd/ä file %20 +.csv"
    assert place.read(info.path) == b"1"


def test_join_goes_below(place: Place) -> None:
    below = place.join("a/b")

    below.write("c", b"1")

    assert place.read("a/b/c") == b"1"
    assert below.uri == place.path("a/b")
    assert [info.path for info in below.list()] == ["c"]


def test_deleting_twice_is_fine(place: Place) -> None:
    place.write("a", b"1")

    place.delete("a")
    place.delete("a")

    assert place.list() == []


def test_delete_all_takes_the_folder_and_nothing_beside_it(place: Place) -> None:
    for name in ("gone/a", "gone/b/c", "gone2/kept"):
        place.write(name, b"1")

    place.delete_all("gone")

    assert [info.path for info in place.list()] == ["gone2/kept"]


def test_only_the_first_of_two_creations_wins(place: Place) -> None:
    assert place.write_if_absent("commit", b"first")
    assert not place.write_if_absent("commit", b"second")
    assert place.read("commit") == b"first"


def test_creating_again_what_is_there_is_a_success(place: Place) -> None:
    place.write_if_absent("commit", b"mine")

    assert place.write_if_absent("commit", b"mine")


def test_of_many_concurrent_creators_exactly_one_wins(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    barrier, won = threading.Barrier(8), []

    def create(number: int) -> None:
        barrier.wait()
        if place.write_if_absent("commit", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [place.read("commit")] == [b"%d" % number for number in won]


@pytest.mark.parametrize("name", ["../x", "a/../x", "/etc/x", "a//b", ".", "", "a/./b", "a\0b"])
def test_a_path_that_would_leave_the_place_is_refused(place: Place, name: str) -> None:
    for operation in (place.read, place.exists, place.delete, place.join, place.path):
        with pytest.raises(StoreError, match="is refused"):
            operation(name)
    with pytest.raises(StoreError, match="is refused"):
        place.write(name, b"")
    with pytest.raises(StoreError, match="is refused"):
        place.write_if_absent(name, b"")


def test_modified_is_the_later_of_mtime_and_ctime(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    place.write("moved-in", b"1")
    os.utime(tmp_path / "moved-in", ns=(0, 1_000_000_000))

    (info,) = place.list()

    status = (tmp_path / "moved-in").stat()
    assert info.modified_ns == status.st_ctime_ns > status.st_mtime_ns
    assert info.etag is None


def test_an_etag_changes_with_the_content(s3_store: S3) -> None:
    place = open_place(f"s3://{BUCKET}/etag", s3_store.options)
    place.write("x", b"1")
    (before,) = place.list()

    place.write("x", b"2")

    (after,) = place.list()
    assert before.etag
    assert before.etag != after.etag
    assert '"' not in before.etag
    assert after.modified_ns > 10**18


def test_more_than_one_page_is_listed(s3_store: S3) -> None:
    place = open_place(f"s3://{BUCKET}/pages", s3_store.options)
    for number in range(1005):
        place.write(f"{number:04}", b"")

    assert [info.path for info in place.list()] == [f"{number:04}" for number in range(1005)]


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from lockstep.errors import StoreError\n"
        "from lockstep.stores.files import open_place\n"
        "place = open_place(sys.argv[1])\n"
        "place.write('x', b'old')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    place.write('x', b'n' * 5000)\n"
        "except StoreError as error:\n"
        "    sys.stdout.write(str(error))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )

    assert "File too large" in done.stdout
    assert "The file is as it was before." in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_an_unfinished_write_of_a_killed_process_is_not_listed(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    place.write("x", b"1")
    (tmp_path / ".lockstep-tmp-0123").write_bytes(b"half")

    assert [info.path for info in place.list()] == ["x"]


def test_a_local_path_is_absolute_and_s3_carries_its_options(
    tmp_path: Path, s3_store: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert open_place("lake").uri == str(tmp_path / "lake")
    assert open_place("lake").options == {}
    assert open_place(f"s3://{BUCKET}/a/", s3_store.options).uri == f"s3://{BUCKET}/a"
    assert open_place(f"s3://{BUCKET}", s3_store.options).path("a") == f"s3://{BUCKET}/a"


def test_s3_is_configured_by_the_environment(s3_store: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in AWS_VARIABLES:
        monkeypatch.delenv(key, raising=False)
    for key, value in s3_store.options.items():
        monkeypatch.setenv(key, value)

    place = open_place(f"s3://{BUCKET}/env")
    place.write("x", b"1")

    assert place.read("x") == b"1"
    assert place.options == s3_store.options


def test_credentials_are_in_no_representation(s3_store: S3) -> None:
    place = open_place(f"s3://{BUCKET}/a", s3_store.options | {"AWS_SECRET_ACCESS_KEY": "canary"})

    assert "canary" not in repr(place)
    assert "canary" not in repr(place.join("b"))


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "s3:///", "file:///tmp/x"])
def test_another_scheme_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        open_place(uri)


def test_plain_http_must_be_allowed_in_so_many_words() -> None:
    options = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}

    with pytest.raises(ConfigError, match="AWS_ALLOW_HTTP=true"):
        open_place("s3://bucket", options)


def test_the_dynamodb_lock_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_LOCKING_PROVIDER", "dynamodb")

    with pytest.raises(ConfigError, match="no longer locks"):
        open_place("s3://bucket/lake")


def test_a_missing_bucket_is_an_error_that_names_the_object(s3_store: S3) -> None:
    place = open_place("s3://no-such-bucket/a", s3_store.options)

    with pytest.raises(StoreError, match=r"s3://no-such-bucket/a/x .*NoSuchBucket"):
        place.write("x", b"1")


def test_a_creation_whose_reply_was_lost_is_a_success(s3_store: S3) -> None:
    faults = Faults(lose_replies=1, only="commit")
    with faulty(s3_store, faults) as proxied:
        place = open_place(f"s3://{BUCKET}/lost", proxied.options)

        assert place.write_if_absent("commit", b"mine")

    assert faults.lose_replies == 0
    assert open_place(f"s3://{BUCKET}/lost", s3_store.options).read("commit") == b"mine"


def test_the_probe_accepts_a_store_that_honours_if_none_match(s3_store: S3, tmp_path: Path) -> None:
    probe_conditional_put(f"s3://{BUCKET}/probe", s3_store.options)
    probe_conditional_put(str(tmp_path))

    assert open_place(f"s3://{BUCKET}/probe", s3_store.options).list() == []
    assert list(tmp_path.iterdir()) == []


def test_the_probe_refuses_a_store_that_ignores_if_none_match(s3_store: S3) -> None:
    with (
        faulty(s3_store, Faults(strip_if_none_match=True)) as proxied,
        pytest.raises(StoreError, match="If-None-Match"),
    ):
        probe_conditional_put(f"s3://{BUCKET}/probe", proxied.options)

    assert open_place(f"s3://{BUCKET}/probe", s3_store.options).list() == []


def test_importing_the_module_does_not_import_boto3() -> None:
    script = "import sys, lockstep.stores.files; sys.exit('boto3' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
