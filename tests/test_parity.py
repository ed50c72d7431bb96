"""One case table through every door: the answer is the same, because the corridor is."""

from __future__ import annotations

import pytest
from django.test import AsyncClient, Client

from tests.cases import BY_NAME, CASES
from tests.clients import Answer, fetch, knock
from tests.site import application

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.site")]

PASSED = {"websocket": 101, "http": 200, "sync": 200, "async": 200}


async def through_websocket(case, headers):
    return await knock(application, f"/ws/{case.name}/", headers=headers)


async def through_http(case, headers):
    return await fetch(application, f"/http/{case.name}/", headers=headers)


@pytest.fixture(params=["websocket", "http", "sync", "async"])
def door(request):
    return request.param


@pytest.fixture
def ask(door, headers_of, sessions, settings):
    """A function from a case to the answer that this door gives."""

    async def ask_asgi(case):
        headers = headers_of(case.user)
        function = through_websocket if door == "websocket" else through_http
        return await function(case, headers)

    async def ask_async_view(case):
        client = AsyncClient(raise_request_exception=False)
        if case.user:
            client.cookies[settings.SESSION_COOKIE_NAME] = sessions[case.user].session_key
        return answer_of_response(await client.get(f"/async/{case.name}/"))

    def ask_sync_view(case):
        client = Client(raise_request_exception=False)
        if case.user:
            client.cookies[settings.SESSION_COOKIE_NAME] = sessions[case.user].session_key
        return answer_of_response(client.get(f"/sync/{case.name}/"))

    return {"sync": ask_sync_view, "async": ask_async_view}.get(door, ask_asgi)


def answer_of_response(response):
    headers = [(name.lower(), value) for name, value in response.items()]
    headers += [("set-cookie", morsel.OutputString()) for morsel in response.cookies.values()]
    body = response.getvalue() if response.streaming else response.content
    if hasattr(body, "__aiter__"):
        raise AssertionError(body)
    return Answer(response.status_code, headers, body)


def check(case, answer, passed):
    if case.status == 0:
        assert answer.status == passed
        return
    assert answer.status == case.status
    for name, value in case.headers.items():
        assert answer.header(name) == value
    assert "no-store" in answer.header("cache-control")
    assert answer.header("vary")
    if case.body is not None:
        assert answer.body == case.body
    else:
        assert answer.problem["code"] == case.code
        assert answer.problem["status"] == case.status
    assert b"secret" not in answer.body


@pytest.mark.parametrize("case", CASES, ids=list(BY_NAME))
def test_every_door_answers_a_case_alike(case, ask, door):
    from asgiref.sync import async_to_sync, iscoroutinefunction

    answer = async_to_sync(ask)(case) if iscoroutinefunction(ask) else ask(case)
    check(case, answer, PASSED[door])


@pytest.mark.parametrize("case", CASES, ids=list(BY_NAME))
async def test_without_the_extension_a_denial_is_a_close_with_its_status(case, headers_of):
    answer = await knock(application, f"/ws/{case.name}/", headers=headers_of(case.user), extensions={})
    if case.status == 0:
        assert answer.status == 101
    else:
        assert answer.close == (4000 + case.status, case.code)


@pytest.mark.parametrize("case", CASES, ids=list(BY_NAME))
async def test_deny_with_close_accepts_and_closes_with_the_status(case, headers_of, settings):
    settings.CHANNELS_WSDENY = {"DENY_WITH": "close"}
    from tests.clients import Handshake, websocket_scope

    scope = websocket_scope(
        f"/ws/{case.name}/", headers=headers_of(case.user), subprotocols=["chat.v1", "chat.v2"]
    )
    handshake = Handshake(application, scope)
    answer = await handshake.connect()
    assert answer.status == 101
    if case.status == 0:
        await handshake.leave()
        return
    assert answer.messages[0]["subprotocol"] == "chat.v1"
    close = await handshake.next()
    assert close == {"type": "websocket.close", "code": 4000 + case.status, "reason": case.code}
    await handshake.leave()


async def test_every_denial_says_its_content_length(headers_of):
    for case in CASES:
        answer = await knock(application, f"/ws/{case.name}/", headers=headers_of(case.user))
        if case.status:
            assert answer.header("content-length") == str(len(answer.body))
