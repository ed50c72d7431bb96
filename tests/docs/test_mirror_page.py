"""Every snippet of docs/mirror.md does what the page says."""

from __future__ import annotations

import gzip
import json
import logging
import re

import pytest
from django.contrib.auth.views import LoginView
from django.test import Client
from django.urls import include, path

from tests.clients import fetch, knock
from tests.docs.pages import DOCS, blocks, run

page = run("mirror.md")
pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.docs.test_mirror_page")]
urlpatterns = [
    path("join/<slug:room>/", page.join),
    path("rooms/<int:pk>/", page.room),
    path("about/", page.about, name="room_list"),  # The log-in page of the demo links to it.
    path("routes/", include(page.urlpatterns)),
    path("mirrored/", page.mirrored),
    path("log-in/", LoginView.as_view(template_name="registration/login.html")),
]
BROWSER = {"accept": "text/html,*/*;q=0.8"}


@pytest.fixture(autouse=True)
def site(settings):
    settings.MIDDLEWARE = page.MIDDLEWARE
    settings.LOGIN_URL = "/log-in/"
    settings.CHANNELS_WSDENY = {}


@pytest.fixture
def locked(settings):
    settings.CHANNELS_WSDENY = page.CHANNELS_WSDENY


def test_the_middleware_is_the_test_projects_too():
    assert page.MIDDLEWARE[-2] == "channels_wsdeny.middleware.MirrorMiddleware"


def test_a_view_denies_with_the_body_of_the_page():
    answer = Client().get("/join/attic/")
    (expected,) = blocks("mirror.md", "json")
    assert (answer.status_code, answer.json()) == (409, json.loads(expected))


def test_a_view_that_denies_nothing_answers():
    assert Client().get("/join/lobby/").content == b"Welcome to the lobby."


def test_a_person_gets_the_page_of_the_site(settings):
    templates = {"404.html": "The site's own page."}
    loaders = [("django.template.loaders.locmem.Loader", templates)]
    engine = {"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": {"loaders": loaders}}
    settings.TEMPLATES = [engine]
    assert Client().get("/nowhere/", headers=BROWSER).content == b"The site's own page."


def test_a_program_gets_a_problem():
    assert Client().get("/nowhere/").json()["code"] == "not_found"


def test_a_person_is_sent_to_log_in():
    answer = Client().get("/rooms/3/", headers=BROWSER)
    assert (answer.status_code, answer["Location"]) == (302, "/log-in/?next=/rooms/3/")


async def test_the_same_line_guards_the_socket_and_the_view():
    denied = await knock(page.application, "/ws/rooms/3/")
    assert denied.problem == Client().get("/rooms/3/").json()
    assert denied.problem["code"] == "not_authenticated"


def test_a_view_without_a_policy_is_open():
    assert Client().get("/join/lobby/").status_code == 200


@pytest.mark.usefixtures("locked")
def test_a_view_without_a_policy_is_locked_when_asked():
    assert Client().get("/join/lobby/").status_code == 401


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("url", ["/about/", "/log-in/"])
def test_what_is_for_everybody_stays_open(url):
    assert Client().get(url).status_code == 200


async def test_a_consumer_of_http_answers():
    answer = await fetch(page.application, "/ticker/")
    assert (answer.status, answer.body) == (200, b"tick")


async def test_what_is_not_routed_is_a_problem():
    assert (await fetch(page.application, "/nowhere/")).problem["code"] == "not_found"


async def test_a_plain_get_of_a_socket_gets_what_its_policy_says():
    assert (await fetch(page.application, "/ws/rooms/3/")).status == 401


@pytest.mark.usefixtures("locked")
async def test_consumers_of_http_are_locked_as_well():
    from channels.generic.http import AsyncHttpConsumer

    from channels_wsdeny import DenyMiddlewareStack

    class Undecorated(AsyncHttpConsumer):
        async def handle(self, body):
            await self.send_response(200, b"")

    assert (await fetch(DenyMiddlewareStack(Undecorated.as_asgi()), "/")).status == 401


def measured(**data):
    return Client().post("/routes/api/measure/", **data)


def test_a_compressed_body_is_unpacked():
    packed = gzip.compress(b"x" * 1000)
    answer = Client().post(
        "/routes/api/upload/", packed, content_type="text/plain", headers={"Content-Encoding": "gzip"}
    )
    assert answer.content == b"1000 bytes"


def test_a_compressed_body_that_is_too_large_is_a_413(settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 999
    packed = gzip.compress(b"x" * 1000)
    answer = Client().post(
        "/routes/api/upload/", packed, content_type="text/plain", headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 413


def test_a_broken_one_is_a_400():
    answer = Client().post(
        "/routes/api/upload/", b"no gzip", content_type="text/plain", headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 400


def test_json_and_msgpack_are_read_alike():
    msgpack = pytest.importorskip("msgpack")
    packed = msgpack.packb({"celsius": 21})
    assert measured(data=packed, content_type="application/msgpack").content == b"21"
    assert measured(data='{"celsius": 21}', content_type="application/json").content == b"21"
    assert measured(data="{", content_type="application/json").status_code == 400


def test_the_time_of_a_view_is_told():
    assert float(Client().get("/routes/slow/")["X-Response-Time"]) >= 0
    assert float(Client().get("/routes/both/")["X-Response-Time"]) >= 0


def test_requests_of_an_include_are_logged_without_secrets(caplog):
    with caplog.at_level(logging.INFO, "channels_wsdeny"):
        Client().post("/routes/api/upload/", {"name": "ada", "password": "swordfish"}, "application/json")
    (record,) = [record for record in caplog.records if record.levelname == "INFO"]
    assert "ada" in record.getMessage()
    assert "swordfish" not in record.getMessage()


def test_a_route_of_ones_own_does_what_it_overrides():
    answer = Client().post("/mirrored/", "abc", content_type="text/plain")
    assert (answer.content, answer["X-Route"]) == (b"cba", "reversed")


def test_the_table_names_every_route():
    from channels_wsdeny import routes

    named = set(re.findall(r"^\| `(\w+Route)` \|", (DOCS / "mirror.md").read_text(), re.MULTILINE))
    assert named == {name for name in routes.__all__ if name.endswith("Route")} - {"Route"}
