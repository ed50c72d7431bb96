"""The pages of the test project in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.support.processes import ROOT, serving

pytestmark = pytest.mark.servers

#: The text of an element once a text is in it.
SHOWS = """(id, text) => new Promise((done) => {
  const element = document.getElementById(id);
  const look = () => element.textContent.includes(text) && done(element.innerText);
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
  look();
})"""

LOG_IN = """async (name) => {
  const form = new FormData(document.querySelector("main form"));
  form.set("username", name);
  form.set("password", `${name}-demo`);
  return (await fetch("", { method: "POST", body: form })).ok;
}"""


@pytest.fixture(scope="module")
def demo(browser, tmp_path_factory):
    """The address of the demo, on our Daphne."""
    directory = tmp_path_factory.mktemp("demo")
    environment = {"TESTPROJECT_DATABASE_NAME": str(directory / "demo.sqlite3")}
    prepare = [sys.executable, "manage.py", "demo", "--setup-only"]
    subprocess.run(prepare, cwd=ROOT, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL, timeout=60)
    command = ["-m", "channels_wsdeny.daphne", "-p", "{port}", "testproject.asgi:application"]
    with serving(command, directory, {"DJANGO_SETTINGS_MODULE": "testproject.settings", **environment}) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def room_of(browser, demo):
    """A function from a user's name to the page of the lobby, opened by the user."""
    with ExitStack() as pages:

        def open_room(user):
            page = pages.enter_context(browser.page(f"{demo}/login/"))
            page.run(LOG_IN, user)
            page.go(f"{demo}/rooms/lobby/")
            return page

        yield open_room


def test_a_denial_is_shown_beside_the_chat_with_reason_status_and_code(room_of):
    page = room_of("bob")
    assert page.run(SHOWS, "state", "denied") == "denied"
    shown = page.run("document.querySelector('main').innerText")
    for text in ("You do not have permission", "403 Forbidden", "permission_denied", "false"):
        assert text in shown, shown
    assert page.run("compose.text.disabled")


def test_a_member_chats_and_sees_no_denial(room_of):
    page = room_of("alice")
    assert page.run(SHOWS, "state", "connected") == "connected"
    assert page.run("document.getElementById('denial').hidden")
    page.run("() => { compose.text.value = 'Hello <b>'; compose.requestSubmit(); }", 0)
    assert "Hello <b>" in page.run(SHOWS, "log", "Hello")
    assert "2 rooms" in page.run(SHOWS, "status", "rooms")


def test_who_is_removed_while_they_chat_is_told_that_their_access_has_ended(room_of):
    alice, staff = room_of("alice"), room_of("staff")
    assert alice.run(SHOWS, "state", "connected") == "connected"
    staff.run("void setTimeout(() => document.querySelector('[name=username]').click())")
    assert "Your access has ended." in alice.run(SHOWS, "reason", "access")
    assert alice.run("document.getElementById('state').textContent") == "denied"
    assert alice.run("compose.text.disabled")
