"""A request file is read strictly: what is wrong is said at once, and no path leads outside."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lockstep.cli import app
from lockstep.errors import ConfigError, InputError
from lockstep.project import Project, find_project
from lockstep.store import Store
from lockstep.training.plan import join_part
from lockstep.training.request import (
    FOLDER,
    TrainingRequest,
    memory_of,
    read_request,
    request_files,
    requested,
)
from lockstep.training.requested_sets import (
    Planned,
    build_request,
    compare_request,
    finish_request,
    plan_request,
)
from tests.tiny_project import NOW, TinyProject

GOOD = "spine: spines/churn.csv\nfeature_set: churn_v1\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    (folder / FOLDER).mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[tool.lockstep]\nviews = "views"\nroot = ".lockstep/lake"\ntime_zone = "UTC"\n'
    )
    return find_project(folder)


def read(project: Project, text: str | bytes, name: str = "churn.yaml") -> TrainingRequest:
    file = project.folder / FOLDER / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_request(project, file)


def refused(project: Project, text: str | bytes, name: str = "churn.yaml") -> str:
    with pytest.raises(InputError) as told:
        read(project, text, name)
    assert "Nothing was joined." in str(told.value)
    return str(told.value)


def test_the_shortest_request_leaves_the_rest_to_the_defaults(project: Project) -> None:
    found = read(project, GOOD)

    assert ("churn", f"{FOLDER}/churn.yaml") == (found.name, found.file)
    assert str(project.folder / "spines" / "churn.csv") == found.spine
    assert "churn_v1" == found.wanted
    assert ("event", "event_timestamp", None) == (found.mode, found.timestamp, found.time_zone)
    assert (None, None) == (found.memory, found.parts)
    assert not found.leakage


def test_everything_can_be_said(project: Project) -> None:
    found = read(
        project,
        "spine: spines/s.parquet\nfeatures: [a:b, c:d]\nmode: known\ntimestamp: at\n"
        "leakage: true\nparts: 8\n"
        "time_zone: America/New_York\nmemory: 1.5 GB\nowner: team:growth\ndescription: Who leaves.",
    )

    assert ["a:b", "c:d"] == found.wanted
    assert ("known", "at", "America/New_York") == (found.mode, found.timestamp, found.time_zone)
    assert (1_500_000_000, 8, True) == (found.memory, found.parts, found.leakage)
    assert ("team:growth", "Who leaves.") == (found.owner, found.description)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("4 GB", 4_000_000_000),
        ("0.5KB", 500),
        ("much", None),
        ("0", None),
        ("-1 GB", None),
        (0, None),
        (True, None),
        (1.5, None),
        (None, None),
    ],
)
def test_memory_is_bytes_or_text_with_a_unit(value: object, expected: int | None) -> None:
    assert expected == memory_of(value)


def test_all_problems_are_told_at_once_with_the_nearest_keys(project: Project) -> None:
    text = "features: txn_7d:sum_amt_7d\nmod: known\nmode: sometimes\n"
    text += "memory: much\nleakage: 1\nparts: 0\n"

    told = refused(project, text)

    assert told.startswith(f"{FOLDER}/churn.yaml is wrong: ")
    for part in (
        "There is no key 'mod'; did you mean 'mode'?",
        "'spine' is missing.",
        "'features' is 'txn_7d:sum_amt_7d', expected a list like [txn_7d:sum_amt_7d, ",
        "'mode' is 'sometimes', expected event or known.",
        "'memory' is 'much', expected bytes, or text like 4 GB.",
        "'parts' is 0, expected a number from 1 to 10000.",
        "'leakage' is 1, expected true or false.",
        "Correct the file.",
    ):
        assert part in told


@pytest.mark.parametrize("features", ["", "features: [a:b]\nfeature_set: churn_v1\n"])
def test_exactly_one_way_to_name_features_is_needed(project: Project, features: str) -> None:
    told = refused(project, f"spine: s.csv\n{features}")

    assert "Exactly one of 'features' and 'feature_set' is needed." in told


def test_a_time_zone_that_does_not_exist_is_named(project: Project) -> None:
    with pytest.raises(ConfigError, match="Time zone 'Mars/Base' is not known"):
        read(project, f"{GOOD}time_zone: Mars/Base\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing"),
        ("- spine\n- mode\n", "no keys but list"),
        ("just words", "no keys but str"),
        ("1: a\n", "no keys but dict"),
        (f"{GOOD}spine: other.csv\n", "spine twice"),
        ("spine: [a\n", "in line 2"),
        ("spine: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ("---\na: 1\n---\nb: 2\n", "but found another document in line 3"),
        (b"spine: \xff\xfe", "not UTF-8"),
        ("# " + "x" * 100_000, "more than 100,000 bytes"),
    ],
)
def test_what_is_no_request_is_refused_with_what_it_is(
    project: Project, text: str | bytes, why: str
) -> None:
    assert why in refused(project, text)


@pytest.mark.parametrize(
    "name", ["Churn.yaml", "1st.yaml", "a-b.yaml", "a" * 64 + ".yaml", "a.yml"]
)
def test_a_file_that_can_name_no_set_is_refused(project: Project, name: str) -> None:
    told = refused(project, GOOD, name)

    assert f"{name!r} can't name a training request." in told


@pytest.mark.parametrize(
    "spine",
    [
        "/etc/passwd",
        "../other/spine.csv",
        "spines/../../spine.csv",
        ".env",
        ".lockstep/redis/secret.csv",
        ".lockstep/lake/quarantine/txn_7d/rows.parquet",
        "lake:quarantine/txn_7d/rows.parquet",
        "lake:../redis/secret.csv",
        "s3://bucket/lake/spine.csv",
        "https://example.com/spine.csv",
    ],
)
def test_a_spine_belongs_to_the_project(project: Project, spine: str) -> None:
    told = refused(project, f"spine: {spine}\nfeature_set: churn_v1\n")

    assert told.startswith("The spine '")
    assert f"of {FOLDER}/churn.yaml does not belong to the project." in told


def test_a_link_that_leads_outside_is_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (project.folder / "spine.csv").symlink_to(tmp_path / "secret.csv")

    assert "does not belong to the project" in refused(
        project, "spine: spine.csv\nfeature_set: f\n"
    )


def test_spines_below_the_lake_are_allowed_wherever_the_lake_is(
    project: Project, tmp_path: Path
) -> None:
    hidden = read(project, "spine: .lockstep/lake/spines/s.parquet\nfeature_set: f\n")
    far = replace(project, root=str(tmp_path / "far"))
    absolute = read(far, f"spine: {tmp_path}/far/spines/s.parquet\nfeature_set: f\n")
    bucket = replace(project, root="s3://bucket/lake")
    remote = read(bucket, "spine: s3://bucket/lake/spines/s.parquet\nfeature_set: f\n")

    named = [read(of, "spine: lake:spines/s.parquet\nfeature_set: f\n") for of in (far, bucket)]

    assert [absolute.spine, remote.spine] == [request.spine for request in named]
    assert f"{project.root}/spines/s.parquet" == hidden.spine
    assert f"{tmp_path}/far/spines/s.parquet" == absolute.spine
    assert "s3://bucket/lake/spines/s.parquet" == remote.spine
    for path in ("lake/quarantine/s.csv", "lake/../other/s.csv", "lakes/s.csv", "lake"):
        refused(bucket, f"spine: s3://bucket/{path}\nfeature_set: f\n")


def test_only_what_is_asked_for_changes_the_hash(project: Project) -> None:
    first = read(project, GOOD)
    same = read(project, "# asked again\nfeature_set:   churn_v1\n\nspine: 'spines/churn.csv'\n")
    other = read(project, f"{GOOD}mode: known\n")

    assert first.content_hash == same.content_hash != other.content_hash


def test_requests_are_found_by_name(project: Project) -> None:
    for name in ("b.yaml", "a.yaml", "c.yml", ".hidden.yaml", "notes.txt"):
        (project.folder / FOLDER / name).write_text(GOOD)

    assert ["a.yaml", "b.yaml", "c.yml"] == [file.name for file in request_files(project)]
    assert "b" == requested(project, "b").name
    with pytest.raises(InputError, match="no training request named 'c'"):
        requested(project, "c")


def test_a_project_without_requests_has_none(tmp_path: Path, project: Project) -> None:
    assert [] == request_files(replace(project, folder=tmp_path / "elsewhere"))


# The same file on the command line.


@pytest.fixture
def asked(tmp_path: Path, built_once: TinyProject, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A request in a copy of a built project, which is the working directory."""
    folder = tmp_path / "my project"
    shutil.copytree(built_once.folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        "lockstep.store.open_store", lambda: Store(find_project(folder), now=lambda: NOW)
    )
    (folder / "spine.csv").write_text(f"customer,event_timestamp\nada,{NOW:%Y-%m-%dT%H:%M:%SZ}\n")
    (folder / FOLDER).mkdir()
    file = folder / FOLDER / "buying.yaml"
    file.write_text("spine: spine.csv\nfeature_set: buying_v1\n")
    return file


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["training-set", *arguments])


def test_the_command_line_builds_what_a_file_asks_for(asked: Path) -> None:
    done = command("--request", f"{FOLDER}/buying.yaml", "--json")

    told = json.loads(done.stdout)
    assert (0, "buying", 1) == (done.exit_code, told["name"], told["rows"])
    assert (asked.parent.parent / "lake" / "training_sets" / "buying" / "data.parquet").is_file()


def test_the_command_line_says_what_is_wrong_in_the_same_words(asked: Path) -> None:
    asked.write_text("spine: spine.csv\nfeatur_set: buying_v1\n")
    with pytest.raises(InputError) as told:
        read_request(find_project(asked.parent), asked)

    done = command("--request", str(asked))

    assert 2 == done.exit_code
    assert " ".join(str(told.value).split()) in " ".join(done.output.split())


@pytest.mark.parametrize(
    "option",
    [
        "--feature-set buying_v1",
        "--mode event",
        "--memory 4GB",
        "--time-zone UTC",
        "--timestamp event_timestamp",
        "--leakage",
        "--out x.parquet",
    ],
)
def test_a_request_says_everything_itself(asked: Path, option: str) -> None:
    done = command("--request", str(asked), *option.split())

    assert 2 == done.exit_code
    assert f"Both --request and {option.split(maxsplit=1)[0]} are given." in done.output


def test_a_request_whose_report_can_not_be_written_builds_nothing(asked: Path) -> None:
    done = command("--request", str(asked), "--report", "no/where.html")

    assert 2 == done.exit_code
    assert "The report can't be written to no/where.html." in done.output
    assert not (asked.parent.parent / "lake" / "training_sets" / "buying").exists()


def opened(asked: Path) -> Store:
    return Store(find_project(asked.parent), now=lambda: NOW)


def planned(store: Store, asked: Path) -> Planned:
    """Plan the request and join its parts, as a run does before another one finishes."""
    found = plan_request(store, read_request(store.project, asked))
    for part in range(len(found.plan.parts)):
        join_part(store, found.plan, part)
    return found


@pytest.mark.parametrize("same", [True, False], ids=["the same content", "another spine"])
def test_of_two_runs_of_a_request_at_once_the_second_takes_the_next_name(
    asked: Path, *, same: bool
) -> None:
    store, spine = opened(asked), asked.parent.parent / "spine.csv"
    first = planned(store, asked)
    if not same:
        spine.write_text(f"{spine.read_text()}bob,{NOW:%Y-%m-%dT%H:%M:%SZ}\n")
    second = planned(store, asked)

    made = [finish_request(store, run) for run in (first, second)]
    again = finish_request(store, second)

    names = ["buying", "buying" if same else "buying__2"]
    assert names == [training.name for training in made]
    assert names[1] == again.name
    folders = {path.name for path in (asked.parent.parent / "lake" / "training_sets").iterdir()}
    assert {*names} == {name for name in folders if name.startswith(("buying", "."))}


def test_a_damaged_set_keeps_no_request_from_being_built(asked: Path) -> None:
    store = opened(asked)
    finish_request(store, planned(store, asked))
    (asked.parent.parent / "lake/training_sets/buying/manifest.json").write_text("{")

    assert "buying__2" == finish_request(store, planned(store, asked)).name
    assert "buying__2" == build_request(store, read_request(store.project, asked)).name


def test_the_comparison_of_the_modes_keeps_to_the_memory_of_the_request(asked: Path) -> None:
    store = opened(asked)
    made = build_request(store, read_request(store.project, asked))
    asked.write_text(f"{asked.read_text()}leakage: true\nmemory: 1\n")

    with pytest.raises(InputError, match="memory budget of 1 bytes"):
        compare_request(store, read_request(store.project, asked), made.manifest)
