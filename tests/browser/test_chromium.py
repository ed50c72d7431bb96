"""The module in a real browser, against real servers."""

import pytest

from tests.docs.pages import blocks

pytestmark = pytest.mark.servers

TICKET = """async (url) => {
  const headers = { "X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]").value };
  const body = new URLSearchParams({ path: url });
  return (await (await fetch("/ticket/", { method: "POST", headers, body })).json()).ticket;
}"""


def types(log):
    return [event["type"] for event in log]


def test_a_denied_handshake_ends_with_its_problem(page):
    log = page.run("open_('/ws/status/403/')")
    assert types(log) == ["error", "denied", "close"]
    assert (log[2]["code"], log[2]["reason"]) == (4403, "permission_denied")
    problem = log[2]["problem"]
    assert (problem["status"], problem["detail"], problem["retry"]) == (403, "No.", False)


def test_an_open_socket_talks_until_it_is_closed(page):
    script = """async () => {
      const ended = open_("/ws/open/");
      await new Promise(done => socket.onopen = done);
      socket.binaryType = "arraybuffer";
      socket.send("hello");
      socket.send(new Uint8Array([0, 255]));
      let number = 0;
      socket.onmessage = () => ++number == 2 && socket.close(4000, "bye");
      const log = await ended;
      return [log.map(({ type }) => type), log[1].data, [...new Uint8Array(log[2].data)], socket.url];
    }"""
    found = page.run(f"({script})()")
    assert found[:3] == [["open", "message", "message", "close"], "hello", [0, 255]]
    assert found[3].startswith("ws://127.0.0.1:")


def test_a_passing_denial_is_tried_again_after_the_time_that_it_asks_for(page, token):
    log = page.run(f"open_('/ws/busy/{token}/', [], {{}}, 'open')")
    assert types(log) == ["error", "denied", "retry", "open"]
    assert (log[1]["problem"]["code"], log[2]["problem"]["retry"]) == ("throttled", 1)
    assert 1 <= log[2]["delay"] <= 1.01


@pytest.mark.parametrize(("code", "then"), [(1012, "retry"), (4401, "close"), (4403, "close"), (1000, "close")])
def test_an_open_socket_resumes_or_stops_by_its_close_code(page, token, code, then):
    log = page.run(f"open_('/ws/close/{token}/{code}/', [], {{}}, '{then}')")
    assert (types(log)[0], types(log)[-1], log[-1]["code"]) == ("open", then, code)
    assert then == "close" or page.run("isOpen()")


def test_a_denial_by_a_close_reads_the_same(page, token):
    log = page.run("open_('/closing/ws/status/401/')")
    assert types(log) == ["open", "denied", "close"]
    assert (log[2]["code"], log[2]["problem"]) == (4401, {"status": 401, "code": "not_authenticated"})
    log = page.run(f"open_('/closing/ws/busy/{token}/', [], {{}}, 'retry')")
    assert (log[2]["code"], log[2]["problem"]) == (4429, {"status": 429, "code": "throttled", "retry": 1})


def test_a_ticket_is_fresh_for_each_request_so_the_reason_is_the_true_one(page, server):
    page.go(f"http://127.0.0.1:{server.port}/log-in/")
    page.run(f"globalThis.ticket = {TICKET}")
    assert types(page.run("open_('/ws/user/', [], { ticket }, 'open')")) == ["open"]
    assert page.run("open_('/ws/suspended/', [], { ticket })")[-1]["problem"]["code"] == "suspended"
    used = "ticket('/ws/suspended/').then((used) => open_('/ws/suspended/', [], { ticket: () => used }))"
    assert page.run(used)[-1]["problem"]["code"] == "invalid_credentials"


def test_a_token_goes_as_a_subprotocol_and_is_asked_about_as_authorization(page):
    options = "{{ token: () => '{}' }}".format
    assert types(page.run(f"open_('/ws/user/', [], {options('alice')}, 'open')")) == ["open"]
    assert page.run("socket.protocol") == "bearer"
    for token, url, code in (("alice", "/ws/suspended/", "suspended"), ("bob", "/ws/user/", "invalid_credentials")):
        assert page.run(f"open_('{url}', [], {options(token)})")[-1]["problem"]["code"] == code
    refused = page.run(f"open_('/ws/user/', [], {options('a b')})")
    assert (types(refused), refused[-1]["code"]) == (["error", "close"], 1006)


def test_a_page_of_a_trusted_origin_learns_the_reason_with_its_cookies_and_another_does_not(page, server, servers):
    origin = f"http://127.0.0.1:{server.port}"
    other = servers("daphne" if "uvicorn" in str(server.popen.args) else "uvicorn", origin)
    address = f"http://127.0.0.1:{other.port}/ws"
    assert page.run(f"open_('{address}/cookie/')")[-1]["code"] == 4401
    page.run("document.cookie = 'who=alice'")
    assert types(page.run(f"open_('{address}/cookie/', [], {{}}, 'open')")) == ["open"]
    assert page.run(f"open_('{address}/status/404/')")[-1]["problem"]["status"] == 404
    token = "{ token: () => 'bob' }"  # needs a preflight
    assert page.run(f"open_('{address}/user/', [], {token})")[-1]["problem"]["code"] == "invalid_credentials"
    stranger = f"http://localhost:{server.port}"
    page.go(f"{stranger}/")
    for options in ("{ tries: 1 }", "{ tries: 1, token: () => 'bob' }"):
        log = page.run(f"open_('{address}/status/404/', [], {options})")
        assert (types(log), log[-1]["code"]) == (["error", "retry", "error", "close"], 1006)


@pytest.mark.parametrize("name", ["uvicorn", "daphne"])
def test_a_socket_resumes_when_its_server_is_back(browser, serve, name):
    server = serve(name)
    with browser.page(f"http://127.0.0.1:{server.port}/") as page:
        page.run("void (ended = open_('/ws/open/', [], { maxDelay: 0.2 }, 'retry'))")
        page.run("isOpen()")
        server.stop()
        assert page.run("ended")[-1]["code"] == {"uvicorn": 1012, "daphne": 1006}[name]
        serve(name, port=server.port)
        assert page.run("isOpen()")


def test_a_server_that_is_not_there_is_tried_again_until_it_is_given_up(page, unused_tcp_port):
    log = page.run(f"open_('ws://127.0.0.1:{unused_tcp_port}/', [], {{ tries: 2 }})")
    assert (types(log), log[-1]["code"]) == (["error", "retry"] * 2 + ["error", "close"], 1006)


@pytest.mark.parametrize("when", ["0", "new Promise(done => socket.onerror = done)", "new Promise(setTimeout)"])
def test_close_ends_it_at_any_time(page, when):
    script = (
        f"(async () => {{ const ended = open_('/ws/status/503/'); await {when}; socket.close(); return ended; }})()"
    )
    log = page.run(script)
    assert (types(log)[-1], page.run("socket.readyState")) == ("close", 3)


def test_a_page_that_is_left_leaves_nothing_behind(page, server, token):
    page.run(f"void open_('/ws/busy/{token}/'); void open_('/ws/status/503/'); void open_('/ws/open/')")
    page.go(f"http://127.0.0.1:{server.port}/ticket/")
    assert page.run("typeof open_") == "undefined"


#: Runs a snippet as a module; a function `show` and a form are there, and what was shown is the value.
SNIPPET = """(code) => new Promise((done) => {
  globalThis.show = done;
  sessionStorage.token = "token";
  const script = Object.assign(document.createElement("script"), { type: "module", textContent: code });
  script.onerror = () => done("it was not loaded");
  document.body.append(script);
  if (!code.includes("show(")) setTimeout(() => done("Not for you."), 500);
})"""


SNIPPETS = [*blocks("browsers.md", "js"), *blocks("cookbook.md", "js")]


@pytest.mark.parametrize("snippet", [each for each in SNIPPETS if " = new " in each])
def test_the_snippets_of_the_documentation_work(page, snippet):
    assert page.run(SNIPPET, snippet) == "Not for you."
