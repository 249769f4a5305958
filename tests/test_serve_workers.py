"""`lockstep serve --workers`: one port, and what becomes of a worker, or of their supervisor."""

import os
import re
import selectors
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest

from lockstep.serving.workers import SETTLED_SECONDS, Backoff
from tests.serving_processes import (
    COMMAND,
    Shop,
    ask,
    free_ports,
    made_in,
    pid_of,
    refused,
    serving,
    wait_until,
)
from tests.serving_world import Caller


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Shop:
    return made_in(tmp_path_factory.mktemp("project") / "a project", redis_url)


def test_workers_share_a_port_and_each_has_one_of_its_own(project: Shop, tmp_path: Path) -> None:
    port = free_ports(3)
    options = ("--port", str(port), "--workers", "2")
    with serving(project, tmp_path / "log", *options) as served:
        answers = {ask(served).json["statuses"][0][0] for _ in range(20)}
        counted = [metric_of(port + 1 + at) for at in range(2)]
        before = pid_of(served, 1)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: served.said.count("Listening on") == 3)
        again = Caller(port + 2).get("/healthz").status
        status = served.end()

    assert {"present"} == answers
    assert 20 == sum(counted)
    assert "Worker 1 ended with -9. It is started again now." in served.said
    assert (200, 0) == (again, status)


def metric_of(port: int) -> float:
    name = 'lockstep_requests_total{route="/v1/features",status="200"}'
    ends = time.monotonic() + 30
    while True:
        try:
            body = Caller(port).get("/metrics").body.decode()
        except ConnectionRefusedError:
            assert time.monotonic() < ends
            continue
        found = re.search(rf"^{re.escape(name)} (\S+)$", body, re.MULTILINE)
        return float(found[1]) if found else 0.0


def test_a_port_of_one_worker_that_is_taken_stops_all_of_them(project: Shop) -> None:
    port = free_ports(3)
    with socket.create_server(("127.0.0.1", port + 2)):
        done = refused(project, "--port", str(port), "--workers", "2")

    assert 2 == done.returncode
    assert f"cannot listen on 127.0.0.1:{port + 2}" in done.stderr
    assert 1 == done.stderr.count("Address already in use")
    assert "started again" not in done.stderr


def test_a_worker_that_dies_again_and_again_is_started_after_pauses(
    redis_url: str, tmp_path: Path
) -> None:
    project = made_in(tmp_path / "dying", redis_url)
    (views,) = project.folder.glob("views_*")
    (views / "dying.py").write_text("import os\n\nos._exit(3)\n")
    port = free_ports(3)
    with (tmp_path / "log").open("w") as output:
        supervisor = subprocess.Popen(
            [*COMMAND, "--port", str(port), "--workers", "2"],
            cwd=project.folder,
            env=project.environment,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert supervisor.stderr is not None
    with supervisor:
        deaths = list(islice((said for said in supervisor.stderr if "ended" in said), 3))
        supervisor.send_signal(signal.SIGTERM)
        status = supervisor.wait(20)

    assert [
        f"ERROR Worker 0 ended with 3. It is started again {when}.\n"
        for when in ("now", "in 1 s", "in 2 s")
    ] == [death.partition(",")[2][4:] for death in deaths]
    assert 0 == status


def test_pauses_double_up_to_half_a_minute_and_begin_anew() -> None:
    backoff = Backoff()

    in_a_row = [backoff.pause(0.1) for _ in range(8)]
    after_a_good_while = [backoff.pause(SETTLED_SECONDS), backoff.pause(1), backoff.pause(1)]

    assert [0, 1, 2, 4, 8, 16, 30, 30] == in_a_row
    assert [0, 1, 2] == after_a_good_while


def test_workers_end_when_their_supervisor_was_killed(project: Shop, tmp_path: Path) -> None:
    options = ("--port", str(free_ports(3)), "--workers", "2")
    with serving(project, tmp_path / "log", *options) as served:
        wait_until(lambda: served.said.count("Listening on") == 2)
        with ExitStack() as stack:
            workers = [os.pidfd_open(pid_of(served, at)) for at in range(2)]
            ended = selectors.DefaultSelector()
            stack.callback(ended.close)
            for worker in workers:
                stack.callback(os.close, worker)
                ended.register(worker, selectors.EVENT_READ)
            served.process.kill()
            while ended.get_map():
                found = ended.select(20)
                assert found, served.said
                for key, _ in found:
                    ended.unregister(key.fd)

    assert 2 == served.said.count("The supervisor of the workers is gone; this one stops.")
    assert "Traceback" not in served.said
