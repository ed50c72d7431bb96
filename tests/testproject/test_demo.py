"""``manage.py demo``: what it prepares, what it prints, and what the printed lines show."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command

from testproject.chat.models import Room

ROOT = Path(__file__).parents[2]


def demo(*arguments):
    output = StringIO()
    call_command("demo", "--setup-only", *arguments, stdout=output)
    return output.getvalue()


def curl_lines(output):
    return [shlex.split(line) for line in output.splitlines() if line.strip().startswith("curl")]


@pytest.fixture
def fast_passwords(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def output(db, fast_passwords):
    return demo()


@pytest.mark.parametrize("name", ["alice", "bob", "staff"])
def test_everybody_can_log_in_with_the_printed_password(output, client, name):
    assert f"{name}-demo" in output
    assert client.login(username=name, password=f"{name}-demo")


def test_staff_is_staff(output):
    assert [user.username for user in User.objects.filter(is_staff=True)] == ["staff"]


def test_alice_is_the_only_member_of_every_room(output):
    assert {room.slug: [user.username for user in room.members.all()] for room in Room.objects.all()} == {
        "engineering": ["alice"],
        "lobby": ["alice"],
    }


def test_a_second_run_says_the_same(output):
    assert demo() == output


def test_a_second_run_leaves_as_they_are_a_changed_password_and_a_cancelled_membership(output):
    alice = User.objects.get(username="alice")
    alice.set_password("changed")
    alice.save()
    alice.rooms.clear()
    demo()
    alice.refresh_from_db()
    assert alice.check_password("changed")
    assert not alice.rooms.exists()


def test_a_session_of_bob_that_is_good_no_longer_is_replaced(output):
    bob = User.objects.get(username="bob")
    bob.set_password("changed")
    bob.save()
    assert demo() != output
    assert Session.objects.count() == 2


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1:8001/"),
        ("0.0.0.0", "http://127.0.0.1:8001/"),
        ("::1", "http://[::1]:8001/"),
    ],
)
def test_the_printed_address_is_one_that_a_browser_reaches(output, host, origin):
    assert origin in demo("--host", host, "--port", "8001")


def test_a_port_that_is_taken_is_named_before_anything_is_done():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"Port {port} is taken.*--port"):
            call_command("demo", "--port", str(port))


def test_an_address_of_another_machine_is_named():
    with pytest.raises(CommandError, match=r"Cannot listen on port 8000 of 192\.0\.2\.1"):
        call_command("demo", "--host", "192.0.2.1")


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_what_is_no_port_is_named(port):
    with pytest.raises(CommandError, match=f"'{port}' is no port"):
        call_command("demo", f"--port={port}")


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the demo prints, while its server runs in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("demo")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TESTPROJECT_")}
    environment["TESTPROJECT_DATABASE_NAME"] = str(folder / "demo.sqlite3")
    log = folder / "output"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "demo", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(port, process, log)
        yield log.read_text()
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_for(port, process, log):
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"The demo does not answer on port {port}: {log.read_text()}")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize(("line", "status"), [(0, 401), (1, 403), (2, 404)])
def test_the_printed_curl_lines_show_the_denials(printed, line, status):
    answer = subprocess.run(
        curl_lines(printed)[line], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    head, _, body = answer.partition("\n\n")
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert f'"status": {status}' in body
