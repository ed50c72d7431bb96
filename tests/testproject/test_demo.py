"""``manage.py demo``: what it prepares, what it prints, and what the printed lines show."""

import os
import shutil
import socket
import subprocess
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command

from testproject.chat.models import Room
from tests.support.processes import serving


def demo(*arguments):
    output = StringIO()
    call_command("demo", "--setup-only", *arguments, stdout=output)
    return output.getvalue()


@pytest.fixture
def output(db):
    return demo()


def test_the_printed_passwords_are_those_of_the_users_staff_is_in_the_admin_and_alice_is_a_member(output, client):
    for name in ("alice", "bob", "staff"):
        assert f"{name}-demo" in output
        assert client.login(username=name, password=f"{name}-demo")
        for page in ("opensocket", "denial", "route"):
            status = client.get(f"/admin/channels_wsdeny_admin/{page}/").status_code
            assert status == (200 if name == "staff" else 302)
    assert [user.username for user in User.objects.filter(is_staff=True)] == ["staff"]
    members = {room.slug: [user.username for user in room.members.all()] for room in Room.objects.all()}
    assert members == {"engineering": ["alice"], "lobby": ["alice"]}


def test_a_second_run_prints_the_same_and_leaves_as_they_are_a_password_and_a_membership(output):
    assert demo() == output
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
    assert Session.objects.count() == 3  # and the one of alice


def test_the_printed_address_is_one_that_a_browser_reaches(output):
    for host, origin in {"127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::1": "[::1]"}.items():
        assert f"http://{origin}:8001/" in demo("--host", host, "--port", "8001")


def test_a_port_or_an_address_that_cannot_be_had_is_named_before_anything_is_done():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"Port {port} is taken.*--port"):
            call_command("demo", "--port", str(port))
    with pytest.raises(CommandError, match=r"Cannot listen on port 8000 of 192\.0\.2\.1"):
        call_command("demo", "--host", "192.0.2.1")
    for port in ("0", "65536", "-1", "http"):
        with pytest.raises(CommandError, match=f"'{port}' is no port"):
            call_command("demo", f"--port={port}")


@pytest.mark.servers
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_printed_curl_lines_show_denials_and_accepts(tmp_path):
    environment = {name: "" for name in os.environ if name.startswith("TESTPROJECT_")}
    environment["TESTPROJECT_DATABASE_NAME"] = str(tmp_path / "demo.sqlite3")
    environment["TESTPROJECT_DATABASE"] = "sqlite"
    with serving(["manage.py", "demo", "--port", "{port}"], tmp_path, environment) as server:
        lines = [line for line in server.log.splitlines() if line.strip().startswith(("curl", "TICKET"))]
        for line, status in zip(lines, (401, 403, 404, 101, 101, 101), strict=True):
            head, body = _run(line)
            assert head.startswith(f"HTTP/1.1 {status} ")
            assert status == 101 or f'"status": {status}' in body

        # Three a minute are let in. A minute may end between them, and three more are then.
        knocks = [_run(lines[-1]) for _ in range(6)]
        assert any(head.startswith("HTTP/1.1 429 ") and '"status": 429' in body for head, body in knocks)


def _run(line: str) -> tuple[str, str]:
    """The head and the body of the answer to a line for curl, which leaves an accepted socket by its time limit."""
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, errors="replace", timeout=30, check=False)
    head, _, body = ran.stdout.partition("\n\n")
    return head, body
