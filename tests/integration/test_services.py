"""The background services: one a state folder, known for certain, on loopback only, and stopped without harm to others."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from pipeline import processes, services
from pipeline.errors import SchedulerUnavailable, TransientError

REPOSITORY = Path(__file__).parents[2]
SAMPLE_SERVER = REPOSITORY / "scripts" / "sample_server.py"


@pytest.fixture
def state(tmp_path):
    yield tmp_path / "var"
    services.stop_all(tmp_path / "var")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config" / "luigi.cfg"
    path.parent.mkdir()
    path.write_text("[core]\nautoload_range = false\n[resources]\nnetwork = 2\n")
    return path


@pytest.fixture
def sample(tmp_path):
    root = tmp_path / "sample"
    root.mkdir()
    (root / "file.txt").write_text("hello")
    return root


def answer(service, method="HEAD", path="/"):
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


LIBRARY = "import sys; from pathlib import Path; from pipeline import services as s; a = [Path(x) for x in sys.argv[1:]]\n"


def in_another_process(code, *arguments):
    done = subprocess.run([sys.executable, "-c", LIBRARY + code, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


START = "service = s.start_luigid(a[0], config=a[1]); print(service.pid, service.port)"


def kill(pid):
    mark = processes.started_at(pid)
    os.kill(pid, signal.SIGKILL)
    while processes.started_at(pid) == mark:
        time.sleep(0.005)


def test_luigid_outlives_the_command_that_started_it_and_the_next_finds_it(state, config):
    pid, port = map(int, in_another_process(START, state, config).split())
    (found,) = services.running(state)
    assert (found.name, found.pid, found.port, found.url) == ("luigid", pid, port, f"http://127.0.0.1:{port}/")
    assert answer(found)[0] == 204
    assert services.start_luigid(state, config=config) == found
    assert os.getsid(pid) != os.getsid(0)


def test_two_starts_at_once_make_one_luigid(state, config):
    with ThreadPoolExecutor(3) as pool:
        printed = set(pool.map(lambda _: in_another_process(START, state, config), range(3)))
    assert len(printed) == 1


def test_luigid_needs_nothing_on_path_and_reads_our_configuration(state, config, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("LUIGI_CONFIG_PATH", "/nowhere/luigi.cfg")
    service = services.start_luigid(state, config=config)
    status, body = answer(service, "GET", "/api/resource_list")
    assert status == 200
    assert [(row["name"], row["num_total"]) for row in json.loads(body)["response"]] == [("network", 2)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="loopback is one address only")
def test_services_listen_on_loopback_only(state, config, sample):
    for service in (
        services.start_luigid(state, config=config),
        services.start_sample_server(state, root=sample, script=SAMPLE_SERVER),
    ):
        listeners = [line.split() for line in Path(f"/proc/{service.pid}/net/tcp").read_text().splitlines()[1:]]
        addresses = {row[1].split(":")[0] for row in listeners if row[3] == "0A" and row[1].endswith(f":{service.port:04X}")}
        assert addresses == {"0100007F"}


def test_stop_ends_luigid_in_order_and_its_state_is_kept(state, config):
    service = services.start_luigid(state, config=config)
    assert services.stop_all(state) == [service]
    assert processes.started_at(service.pid) is None
    assert (state / "luigid" / "state.pickle").exists()
    assert services.running(state) == services.stop_all(state) == []


def test_stop_and_running_make_nothing_where_there_was_nothing(tmp_path):
    assert services.running(tmp_path / "var") == services.stop_all(tmp_path / "var") == []
    assert not (tmp_path / "var").exists()


@pytest.mark.fault(72)
def test_killed_luigid_comes_back_on_its_old_port(state, config):
    first = services.start_luigid(state, config=config)
    kill(first.pid)
    assert services.running(state) == []
    second = services.start_luigid(state, config=config)
    assert (second.pid != first.pid, second.port) == (True, first.port)
    assert answer(second)[0] == 204


def test_old_port_that_another_program_has_got_is_left_to_it(state, config, monkeypatch):
    monkeypatch.setattr(services, "_HEALTH_TIMEOUT_S", 0.5)  # the other program takes connections and says nothing
    first = services.start_luigid(state, config=config)
    services.stop_all(state)
    with closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first.port))
        other.listen()
        second = services.start_luigid(state, config=config)
    assert second.port != first.port
    assert answer(second)[0] == 204


def test_port_that_is_taken_between_choice_and_use_is_chosen_again(state, config, monkeypatch):
    monkeypatch.setattr(services, "_HEALTH_TIMEOUT_S", 0.5)
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken, really_free = other.getsockname()[1], services._free_port()
        ports = iter([taken, really_free])
        monkeypatch.setattr(services, "_free_port", lambda: next(ports))
        assert services.start_luigid(state, config=config).port == really_free


def test_scheduler_of_another_state_folder_on_the_same_port_is_not_taken_for_ours(state, config, tmp_path, monkeypatch):
    other = services.start_luigid(tmp_path / "other", config=config)
    try:
        really_free = services._free_port()
        ports = iter([other.port, really_free])
        monkeypatch.setattr(services, "_free_port", lambda: next(ports))
        service = services.start_luigid(state, config=config)
        assert (service.port, service.pid != other.pid) == (really_free, True)
    finally:
        services.stop_all(tmp_path / "other")


@pytest.mark.fault(72)
def test_number_that_another_program_has_got_is_no_service_and_is_not_stopped(state, config):
    first = services.start_luigid(state, config=config)
    kill(first.pid)
    foreign = subprocess.Popen(["/bin/sleep", "600"])
    try:
        note = state / "luigid" / "service.json"
        note.write_text(json.dumps(json.loads(note.read_text()) | {"pid": foreign.pid}))
        assert services.running(state) == services.stop_all(state) == []
        assert services.start_luigid(state, config=config).pid != foreign.pid
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_luigid_that_answers_no_more_is_replaced_even_if_it_ignores_the_request_to_end(state, config, monkeypatch):
    monkeypatch.setattr(services, "_RECOVERY_S", 0.5)
    monkeypatch.setattr(services, "STOP_TIMEOUT_S", 1.5)
    first = services.start_luigid(state, config=config)
    os.kill(first.pid, signal.SIGSTOP)  # it takes connections and says nothing, and TERM waits
    monkeypatch.setattr(services, "_HEALTH_TIMEOUT_S", 0.5)
    second = services.start_luigid(state, config=config)
    assert second.pid != first.pid
    assert processes.started_at(first.pid) is None
    assert answer(second)[0] == 204


def test_starter_killed_before_the_service_answered_leaves_it_to_the_next(state, config, tmp_path):
    slow, go = tmp_path / "slow-python", tmp_path / "go"
    slow.write_text(f'#!/bin/sh\nwhile [ ! -e "{go}" ]; do sleep 0.05; done\nexec "{sys.executable}" "$@"\n')
    slow.chmod(0o755)
    code = f"{LIBRARY}s.start_luigid(a[0], config=a[1], python=sys.argv[3])"
    starter = subprocess.Popen([sys.executable, "-c", code, state, config, slow], cwd=REPOSITORY)
    note, deadline = state / "luigid" / "service.json", time.monotonic() + 120
    while not note.exists():
        assert starter.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    starter.kill()
    starter.wait()
    (begun,) = services.running(state)
    go.touch()
    assert services.start_luigid(state, config=config) == begun
    assert answer(begun)[0] == 204


def test_luigid_that_does_not_start_says_why_with_its_log(state, config):
    config.write_text("[core]\nlogging_conf_file = nowhere.conf\n")
    with pytest.raises(SchedulerUnavailable, match="Unable to locate specified logging configuration"):
        services.start_luigid(state, config=config)
    assert services.running(state) == []


def test_sample_server_is_found_again_and_replaced_when_it_should_serve_another_folder(state, sample, tmp_path):
    first = services.start_sample_server(state, root=sample, script=SAMPLE_SERVER)
    assert answer(first, "GET", "/file.txt") == (200, b"hello")
    assert services.start_sample_server(state, root=sample, script=SAMPLE_SERVER) == first
    other = tmp_path / "other"
    shutil.copytree(sample, other)
    (other / "file.txt").write_text("other")
    second = services.start_sample_server(state, root=other, script=SAMPLE_SERVER)
    assert answer(second, "GET", "/file.txt") == (200, b"other")
    assert processes.started_at(first.pid) is None
    assert services.running(state) == [second]


def test_sample_server_that_does_not_start_says_why_with_its_log(state, sample):
    with pytest.raises(TransientError, match=r"nowhere\.py"):
        services.start_sample_server(state, root=sample, script=SAMPLE_SERVER.with_name("nowhere.py"))


def test_luigid_script_runs_in_the_foreground_from_anywhere_with_nothing_on_path(tmp_path, config):
    port = services._free_port()
    environment = {
        "PATH": "/usr/bin:/bin",
        "HCAD_PIPELINE_STATE": str(tmp_path / "var"),
        "LUIGID_PORT": str(port),
        "LUIGI_CONFIG_PATH": str(config),
    }
    script = REPOSITORY / "scripts" / "luigid.sh"
    if not (REPOSITORY / ".venv" / "bin" / "python").exists():
        pytest.skip("the script uses the repository's own .venv, and this run does not")
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen([script], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        service = services.Service("luigid", process.pid, port, "")
        deadline = time.monotonic() + 120
        while not processes.listens_on(process.pid, port):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer(service)[0] == 204
    finally:
        process.terminate()
        process.wait(60)
    assert (tmp_path / "var" / "luigid" / "state.pickle").exists()
