"""One table of cases through every transport: each gives the same answer."""

import pytest

from tests.support.case_site import application
from tests.support.cases import CASES, DENIED, PASSED
from tests.support.clients import Handshake, knock, websocket_scope
from tests.support.transports import TRANSPORTS

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.urls("tests.support.case_site"),
    # Django's own, where its ASGI handler streams from a synchronous iterator.
    pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous"),
]


@pytest.fixture(params=TRANSPORTS)
def ask(request, sessions, settings):
    """A function from a case to its answer on one transport, and the status of requests that pass there."""
    prefix, passed, transport = TRANSPORTS[request.param]

    def ask(case):
        cookie = f"{settings.SESSION_COOKIE_NAME}={sessions[case.user].session_key}" if case.user else ""
        headers = {"Cookie": cookie} if cookie else {}
        return transport().ask("GET", f"{prefix}/{case.name}/", b"", headers)

    return ask, passed


def test_every_case_is_answered_alike(ask):
    ask, passed = ask
    wrong = {case.name: faults for case in DENIED if (faults := case.faults(ask(case)))}
    wrong |= {case.name: answer for case in PASSED if (answer := ask(case)).status != passed}
    assert wrong == {}


@pytest.mark.parametrize("extensions", [None, {}, {"tls": {}}])
async def test_without_the_extension_a_denial_is_a_close_with_its_status(extensions, headers_of):
    found = {}
    for case in CASES:
        headers = headers_of(case.user)
        answer = await knock(application, f"/ws/{case.name}/", headers=headers, extensions=extensions)
        found[case.name] = answer.close or answer.status
    assert found == {case.name: (4000 + case.status, case.reason) if case.status else 101 for case in CASES}


async def test_deny_with_close_accepts_and_closes_with_the_status(headers_of, settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    found = {}
    for case in CASES:
        headers = headers_of(case.user)
        scope = websocket_scope(f"/ws/{case.name}/", headers=headers, subprotocols=["chat.v1", "chat.v2"])
        handshake = Handshake(application, scope)
        (message,) = (await handshake.connect()).messages
        close = await handshake.next() if case.status else {"code": 101, "reason": None}
        await handshake.leave()
        found[case.name] = message.get("subprotocol"), close["code"], close["reason"]
    expected = {case.name: ("chat.v1", 4000 + case.status, case.reason) for case in DENIED}
    assert found == expected | {case.name: (None, 101, None) for case in PASSED}
