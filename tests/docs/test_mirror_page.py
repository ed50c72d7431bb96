"""Every snippet of docs/mirror.md does what the page says."""

import gzip
import json
import logging
import re

import pytest
from asgiref.sync import async_to_sync
from channels.generic.http import AsyncHttpConsumer
from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.urls import include, path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page

from channels_wsdeny import DenyMiddlewareStack, routes
from channels_wsdeny.decorators import require
from channels_wsdeny.policies import DenyAll, IsStaff
from tests.docs.pages import DOCS, blocks, run
from tests.support.clients import fetch, knock
from tests.support.policies import Check
from tests.support.site import templates
from tests.support.sockets import consumer

page = run("mirror.md")
staff_only = require(IsStaff())


Page = type("Page", (View,), {"get": lambda self, request: HttpResponse("For staff.")})


@require(Check(lambda request: request.resolver_match.kwargs["name"] == "x"))
def named(request, name):
    return HttpResponse(name)


pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.docs.test_mirror_page")]
urlpatterns = [
    path("join/<slug:room>/", page.join),
    path("rooms/<int:pk>/", page.room),
    path("about/", page.about, name="room_list"),  # The log-in page of the demo links to these two.
    path("about/", page.about, name="try_it"),
    path("routes/", include(page.urlpatterns)),
    path("mirrored/", page.mirrored),
    path("guarded-class/", cache_page(60)(staff_only(type("Page", (Page,), {})).as_view())),
    path("guarded-dispatch/", cache_page(60)(method_decorator(staff_only, name="dispatch")(Page).as_view())),
    path("calls/<name>/", lambda request, name: named(request, name="y")),
    path("admin/", admin.site.urls),
    path("unnamed/", Page.as_view()),
    path("log-in/", LoginView.as_view(template_name="registration/login.html")),
]
handler404 = "channels_wsdeny.views.page_not_found"
BROWSER = {"accept": "text/html,*/*;q=0.8"}


@pytest.fixture(autouse=True)
def _site(settings):
    settings.MIDDLEWARE = page.MIDDLEWARE
    settings.LOGIN_URL = "/log-in/"
    settings.CHANNELS_WSDENY = {}


@pytest.fixture
def locked(settings):
    settings.CHANNELS_WSDENY = page.CHANNELS_WSDENY


def test_a_view_denies_with_the_body_of_the_page_or_answers():
    answer = Client().get("/join/attic/")
    (expected,) = blocks("mirror.md", "json")
    assert (answer.status_code, answer.json()) == (409, json.loads(expected))
    assert Client().get("/join/lobby/").content == b"Welcome to the lobby."


def test_a_program_gets_a_problem_and_a_person_the_page_of_the_site(settings):
    assert Client().get("/nowhere/").json()["code"] == "not_found"
    settings.TEMPLATES = templates(**{"404": "The site's own page."})
    assert Client().get("/nowhere/", headers=BROWSER).content == b"The site's own page."


async def test_the_same_line_guards_the_socket_and_the_view():
    denied = await knock(page.application, "/ws/rooms/3/")
    answer = Client().get("/rooms/3/")
    assert (denied.status, denied.problem) == (answer.status_code, answer.json())
    assert (await fetch(page.application, "/ws/rooms/3/")).status == 401  # A plain GET of the socket.
    answer = Client().get("/rooms/3/", headers=BROWSER)
    assert (answer.status_code, answer["Location"]) == (302, "/log-in/?next=/rooms/3/")


@pytest.mark.usefixtures("locked")
async def test_a_view_or_consumer_of_http_without_a_policy_is_locked_when_asked_and_a_public_one_stays_open():
    assert (await fetch(DenyMiddlewareStack(AsyncHttpConsumer.as_asgi()), "/")).status == 401
    statuses = {url: Client().get(url).status_code for url in ("/join/lobby/", "/about/", "/log-in/")}
    assert statuses == {"/join/lobby/": 401, "/about/": 200, "/log-in/": 200}


@pytest.mark.parametrize(("policy", "statuses"), [(page.only_admin, (302, 403, 200)), (DenyAll(), (403, 403, 403))])
def test_a_default_policy_may_be_for_the_admin_alone(policy, statuses, settings, users):
    settings.CHANNELS_WSDENY = {"MIRROR_DEFAULT_POLICY": True, "DEFAULT_POLICY": policy}
    for user, status in zip((None, "alice", "staff"), statuses, strict=True):
        client = Client(headers=BROWSER)
        if user is not None:
            client.force_login(users[user])
        assert client.get("/admin/").status_code == status
        assert client.get("/unnamed/").status_code == 403
        assert async_to_sync(knock)(DenyMiddlewareStack(consumer().as_asgi()), "/").status == 403


@pytest.mark.usefixtures("locked")
def test_behind_a_cache_a_guard_is_seen_on_the_class_and_not_on_its_dispatch(settings, users):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    staff, alice, nobody = Client(), Client(), Client()
    staff.force_login(users["staff"])
    alice.force_login(users["alice"])
    for url, status in [("/guarded-class/", 403), ("/guarded-dispatch/", 200)]:
        cache.clear()
        assert alice.get(url).status_code == 403
        answers = [client.get(url) for client in (staff, alice, nobody)]
        assert [answer.status_code for answer in answers] == [200, status, 401]


def test_a_view_that_another_one_calls_is_asked_about_the_arguments_of_the_route():
    assert [Client().get(f"/calls/{name}/").status_code for name in ("x", "y")] == [200, 403]
    assert Client().get("/calls/x/").content == b"y"


async def test_a_consumer_of_http_answers_and_what_is_not_routed_is_a_problem():
    answer = await fetch(page.application, "/ticker/")
    assert (answer.status, answer.body) == (200, b"tick")
    assert (await fetch(page.application, "/nowhere/")).problem["code"] == "not_found"


def upload(body):
    headers = {"Content-Encoding": "gzip"}
    return Client().post("/routes/api/upload/", body, content_type="text/plain", headers=headers)


def test_a_compressed_body_is_unpacked_unless_it_is_too_large_or_broken(settings):
    assert upload(gzip.compress(b"x" * 1000)).content == b"1000 bytes"
    assert upload(b"no gzip").status_code == 400
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 999
    assert upload(gzip.compress(b"x" * 1000)).status_code == 413


def test_json_and_msgpack_are_read_alike():
    msgpack = pytest.importorskip("msgpack")

    def measured(data, content_type):
        return Client().post("/routes/api/measure/", data, content_type=content_type)

    assert measured(msgpack.packb({"celsius": 21}), "application/msgpack").content == b"21"
    assert measured('{"celsius": 21}', "application/json").content == b"21"
    assert measured("{", "application/json").status_code == 400


def test_requests_of_an_include_are_logged_without_secrets(caplog):
    with caplog.at_level(logging.INFO, "channels_wsdeny"):
        Client().post("/routes/api/upload/", {"name": "ada", "password": "swordfish"}, "application/json")
    (record,) = [record for record in caplog.records if record.levelname == "INFO"]
    assert "ada" in record.getMessage()
    assert "swordfish" not in record.getMessage()


def test_a_route_times_and_one_of_ones_own_does_what_it_overrides():
    for url in ("/routes/slow/", "/routes/both/"):
        assert float(Client().get(url)["X-Response-Time"]) >= 0
    answer = Client().post("/mirrored/", "abc", content_type="text/plain")
    assert (answer.content, answer["X-Route"]) == (b"cba", "reversed")


def test_the_table_names_every_route():
    named = set(re.findall(r"^\| `(\w+Route)` \|", (DOCS / "mirror.md").read_text(), re.MULTILINE))
    assert named == {name for name in routes.__all__ if name.endswith("Route")} - {"Route"}
