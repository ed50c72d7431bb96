"""Every snippet of docs/migrating.md does what the page says, also the code that is migrated from."""

import re
import time
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from django.core import signing
from django.core.management import get_commands

from channels_wsdeny import DenyMiddlewareStack, authentication
from channels_wsdeny.policies import AllowAny
from testproject.chat.models import Room
from tests.docs.pages import DOCS, blocks, run_snippets, titled
from tests.support.clients import knock
from tests.support.packages import DRF, PACKAGES
from tests.support.sockets import accept_as_user, consumer

before = run_snippets("migrating.md", [titled("migrating.md")["before"]])
page = run_snippets("migrating.md", blocks("migrating.md")[1:])
#: Who asks for which room, and the status that the migrated application answers with.
ASKED = {(None, "lobby"): 401, ("bob", "lobby"): 403, ("alice", "attic"): 404, ("alice", "lobby"): 101}
#: Classes for which a site has no middleware of its own, or that need an instance.
NOT_IN_TABLE = [f"{DRF}BasicAuthentication", f"{DRF}SessionAuthentication", "ApiToken"]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def statuses(users, headers_of):
    """A function from an application to the status for each that asks; a close without one is a 0."""
    Room.objects.create(slug="lobby", name="Lobby").members.add(users["alice"])
    headers = {user: headers_of(user) for user, _ in ASKED}

    async def statuses(application):
        found = [await knock(application, f"/ws/rooms/{slug}/", headers=headers[user]) for user, slug in ASKED]
        return dict(zip(ASKED, (answer.status for answer in found), strict=True))

    return statuses


async def test_clients_saw_a_close_before_and_see_a_status_now_also_of_hand_written_closes(statuses):
    old = await statuses(before.application)
    assert old == {asked: 101 if status == 101 else 0 for asked, status in ASKED.items()}
    assert await statuses(page.application) == ASKED
    assert await statuses(DenyMiddlewareStack(before.application, default_policy=AllowAny())) == ASKED


async def test_a_public_socket_stays_open_and_the_stack_alone_locks_it():
    apps = {before.application: 101, page.application: 101, DenyMiddlewareStack(before.application): 401}
    for app, status in apps.items():
        assert (await knock(app, "/ws/status/")).status == status


async def test_a_path_without_a_route_was_a_traceback():
    with pytest.raises(ValueError, match="No route found"):
        await knock(before.application, "/nowhere/")
    assert (await knock(page.application, "/nowhere/")).status == 404


@pytest.fixture
def whoami(settings):
    """A consumer for users who are logged in, which tells their name, with the settings of the page."""
    settings.CHANNELS_WSDENY = page.CHANNELS_WSDENY
    return DenyMiddlewareStack(consumer(accept_as_user).as_asgi())


def bearing(token):
    return f"/?token={quote(token)}"


async def test_a_token_lets_in_its_user_and_what_is_none_of_an_active_user_is_a_401(whoami, users, monkeypatch):
    for name, user in users.items():
        answer = await knock(whoami, bearing(page.token_of(user)))
        assert (answer.status, answer.header("x-user")) == (101, name)
    alice, staff = users["alice"], users["staff"]
    token = page.token_of(alice)
    _, signed = token.split(":", 1)
    with monkeypatch.context() as patch:
        patch.setattr(signing, "time", SimpleNamespace(time=lambda: time.time() - 3601))
        expired = page.token_of(alice)
    tampered = [f"{staff.pk}:{signed}", token[:-1] + ("A" if token[-1] != "A" else "B"), token + "A", token.upper()]
    another = signing.TimestampSigner(key="another", salt="chat.token")
    others = [signer.sign(alice.pk) for signer in (signing.TimestampSigner(), another)]
    for forged in ["alice", str(alice.pk), "", ":", "\xe4", *tampered, *others, expired]:
        assert (await knock(whoami, bearing(forged))).status == 401, forged
    assert (await knock(whoami, bearing(token))).status == 101
    alice.is_active = False
    await alice.asave()
    assert (await knock(whoami, bearing(token))).status == 401


def test_the_commands_of_the_page_exist():
    named = re.findall(r"manage\.py (\w+)", (DOCS / "migrating.md").read_text())
    assert set(named) <= set(get_commands())


def test_the_table_of_token_middleware_names_classes_that_are_tried_and_ours():
    section = (DOCS / "migrating.md").read_text().partition("\n## From a token middleware\n")[2]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", section, re.MULTILINE)[1:]
    assert len(rows) == 10
    classes = "\n".join(instead for _, instead in rows)
    assert set(re.findall(r'`"([\w.]+)"`', classes)) == set(PACKAGES) - set(NOT_IN_TABLE)
    own = re.findall(r"`([A-Z]\w+)", classes)
    assert own
    assert [name for name in own if name not in authentication.__all__] == []
