"""The pages of the test project in a real browser."""

from contextlib import ExitStack

import pytest

from tests.support.processes import run, serving

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
    prepared = run(["manage.py", "demo", "--setup-only"], **environment)
    assert prepared.returncode == 0, prepared.stderr
    command = ["-m", "channels_wsdeny.daphne", "-p", "{port}", "testproject.asgi:application"]
    with serving(command, directory, {"DJANGO_SETTINGS_MODULE": "testproject.settings", **environment}) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def page_of(browser, demo):
    """A function from a user's name (or None) to a page that the user has opened, by default the lobby."""
    with ExitStack() as pages:

        def open_page(user, path="/rooms/lobby/"):
            page = pages.enter_context(browser.page(f"{demo}/login/"))
            if user is not None:
                page.run(LOG_IN, user)
            page.go(f"{demo}{path}")
            return page

        yield open_page


def test_a_denial_is_shown_beside_the_chat_with_its_status_headers_and_body(page_of):
    page = page_of("bob")
    shown = page.run(SHOWS, "details", "HTTP 403")
    for text in ("cache-control: no-store", "content-type: application/problem+json", '"code": "permission_denied"'):
        assert text in shown, shown
    assert page.run(SHOWS, "state", "denied") == "denied"
    assert page.run(SHOWS, "reason", "You do not have permission")
    assert page.run("compose.text.disabled")


def test_a_member_chats_and_sees_no_denial(page_of):
    page = page_of("alice")
    assert page.run(SHOWS, "state", "connected") == "connected"
    assert page.run("document.getElementById('details').hidden")
    page.run("() => { compose.text.value = 'Hello <b>'; compose.requestSubmit(); }", 0)
    assert "Hello <b>" in page.run(SHOWS, "log", "Hello")
    assert "2 rooms" in page.run(SHOWS, "status", "rooms")


#: Log out without leaving the page, as in another tab.
LOG_OUT = "void fetch('/logout/', { method: 'POST', body: new FormData(document.querySelector('header form')) })"
PRESS = "(value) => document.querySelector(`[value=${value}]`).click()"
#: Submit a form by the button with a text, without leaving the page.
SEND = """async (text) => {
  const button = [...document.querySelectorAll("button")].find((each) => each.textContent == text);
  await fetch(button.form.action, { method: "POST", body: new FormData(button.form, button) });
}"""


#: Press the button of the throttled socket up to seven times, for a minute may end in between.
PRESS_UNTIL_DENIED = """async () => {
  const state = document.getElementById("state");
  for (let press = 0; press < 7 && state.textContent != "denied"; press++) {
    document.querySelector("[value=throttled]").click();
    await new Promise((done) => {
      const look = () => state.textContent != "connecting" && done();
      new MutationObserver(look).observe(state, { childList: true });
    });
  }
}"""


def test_who_is_removed_or_logs_out_elsewhere_is_told_that_their_access_has_ended(page_of):
    alice, staff = page_of("alice"), page_of("staff")
    for page in (alice, staff):
        assert page.run(SHOWS, "state", "connected") == "connected"
    staff.run(SEND, "Remove alice")
    assert "Your access has ended. The socket was closed with 4403." in alice.run(SHOWS, "reason", "access")
    assert alice.run("document.getElementById('state').textContent") == "ended"
    assert alice.run("compose.text.disabled")
    staff.go(staff.run("location.href"))
    staff.run(SEND, "Add alice")
    alice.go(alice.run("location.href"))
    assert alice.run(SHOWS, "state", "connected") == "connected"
    alice.run(LOG_OUT)
    assert "4401, session_ended" in alice.run(SHOWS, "reason", "Your access has ended.")


def test_the_monitor_shows_handshakes_as_they_come(page_of):
    monitor = page_of("staff", "/monitor/")
    assert "/ws/monitor/" in monitor.run(SHOWS, "handshakes", "IsStaff()")
    page_of("bob")
    shown = monitor.run(SHOWS, "handshakes", "403 Forbidden")
    assert "403 Forbidden\t/ws/rooms/lobby/\tbob\tHasPermission('chat.view_room', obj=room_from_url)" in shown


def test_the_code_of_a_denial_stays_on_one_line_in_the_admin(page_of):
    page_of("bob").run(SHOWS, "details", "HTTP 403")
    admin = page_of("staff", "/admin/channels_wsdeny_admin/denial/")
    admin.resize(1300, 900)
    codes = "[...document.querySelectorAll('#result_list td:nth-child(3) bdi')]"
    lines = admin.run(f"{codes}.map((code) => [code.innerText, code.getClientRects().length])")
    assert ["permission_denied", 1] in lines
    assert {count for _, count in lines} == {1}


def test_a_token_a_ticket_and_a_throttle_are_tried_from_a_page(page_of):
    anonymous, bob, alice = (page_of(user, "/try/") for user in (None, "bob", "alice"))
    for page, button, id_, text in [
        (anonymous, "session", "details", "HTTP 401"),
        (anonymous, "token", "state", "accepted"),
        (anonymous, "unrouted", "details", "HTTP 404"),
        (anonymous, "ticket", "details", "not_authenticated"),
        (bob, "ticket", "details", "HTTP 403"),
        (bob, "token", "state", "accepted"),
        (alice, "ticket", "state", "accepted"),
    ]:
        page.run(PRESS, button)
        assert page.run(SHOWS, id_, text), (button, text)
    bob.run("void (document.getElementById('token').value = 'wrong')")
    bob.run(PRESS, "token")
    assert 'www-authenticate: Bearer error="invalid_token"' in bob.run(SHOWS, "details", "invalid_credentials")
    alice.run(f"({PRESS_UNTIL_DENIED})()")
    assert "retry-after: " in alice.run(SHOWS, "details", "HTTP 429")
