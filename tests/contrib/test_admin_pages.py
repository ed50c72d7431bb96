"""The pages of Django's admin: routes, open sockets, recent denials; and the action of that of users."""

import logging
import re
from concurrent.futures import Future
from html import unescape

import pytest
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.contrib.messages.storage.cookie import CookieStorage
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.test import Client
from django.urls import NoReverseMatch, reverse

from channels_wsdeny import log
from channels_wsdeny.contrib import admin as actions
from channels_wsdeny.contrib.admin import admin as pages
from channels_wsdeny.contrib.admin import denials
from channels_wsdeny.decorators import login_required, public, require
from channels_wsdeny.live import sockets
from channels_wsdeny.policies import IsStaff
from testproject.asgi import application
from tests.support.clients import knock
from tests.support.opened import Opened
from tests.support.policies import accept
from tests.support.processes import run_python

pytestmark = pytest.mark.django_db

PAGES = ("route", "opensocket", "denial")
VIEW = [f"view_{page}" for page in PAGES]
HOSTILE = "<script>alert(1)</script>"


class Timer:
    """A `threading.Timer` whose time has come when the test says so."""

    begun: list

    def __init__(self, interval, function):
        self.interval, self.function = interval, function

    def start(self):
        self.begun.append(self)

    def is_alive(self):
        return self in self.begun

    @classmethod
    def run_all(cls):
        """Run those that were begun, and those that these begin; returns how many."""
        count = 0
        while cls.begun:
            cls.begun.pop(0).function()
            count += 1
        return count


@pytest.fixture(autouse=True)
def recent(monkeypatch):
    """Denials of the test's own: none at first, and nothing is written but by the test."""
    cache.delete(denials._KEY)
    log.logger.addFilter(denials.note)
    found = denials.RecentDenials()
    for module in (denials, pages):
        monkeypatch.setattr(module, "recent", found)
    Timer.begun = []
    monkeypatch.setattr(denials.threading, "Timer", Timer)
    yield found
    cache.delete(denials._KEY)


@pytest.fixture
def client_with(django_user_model):
    """A function that makes a client of a user of staff with these permissions; `None` for those of a superuser."""

    def client_with(*codenames, name="boss", is_staff=True, **options):
        user = django_user_model.objects.create_user(name, is_staff=is_staff, is_superuser=None in codenames)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client = Client(**options)
        client.force_login(user)
        return client

    return client_with


def url(page):
    return reverse(f"admin:channels_wsdeny_admin_{page}_changelist")


def rows(response):
    """The cells of the table, as a browser shows them."""
    table = response.content.decode().partition('id="result_list"')[2].partition("<tbody>")[2]
    found = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    cells = [re.findall(r"<bdi>(.*?)</bdi>", row.replace("<wbr>", "")) for row in found]
    return [[unescape(cell) for cell in row] for row in cells]


def notes(response):
    return re.findall(r'<p class="help">(.*?)</p>', response.content.decode())


def keys(response):
    return [unescape(key) for key in re.findall(r'name="_selected_action" value="(.*?)"', response.content.decode())]


def test_there_is_a_permission_for_each_page_and_one_to_close():
    found = Permission.objects.filter(content_type__app_label="channels_wsdeny_admin")
    assert {permission.codename for permission in found} == {*VIEW, "close_opensocket"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("is_staff", [True, False])
def test_a_page_opens_for_staff_with_its_permission(client_with, page, is_staff):
    own = f"view_{page}"
    for codenames, status in (((None,), 200), ((own,), 200), ({*VIEW, "close_opensocket"} - {own}, 403), ((), 403)):
        client = client_with(*codenames, name=f"boss with {codenames}", is_staff=is_staff)
        assert client.get(url(page)).status_code == (status if is_staff else 302), codenames


def test_the_index_of_the_admin_links_to_the_pages_that_may_be_viewed(client_with):
    content = client_with("view_route", "view_denial").get(reverse("admin:index")).content.decode()
    assert [url(page) in content for page in PAGES] == [True, False, True]
    assert "/add/" not in content


def test_nothing_can_be_added_changed_or_deleted():
    for page in PAGES:
        for view in ("add", "change", "delete", "history"):
            with pytest.raises(NoReverseMatch):
                reverse(f"admin:channels_wsdeny_admin_{page}_{view}", args=[] if view == "add" else ["1"])


@pytest.mark.parametrize("page", ["route", "denial"])
def test_what_is_not_open_is_not_closed(client_with, page):
    assert client_with(None).post(url(page), {"_selected_action": "", "post": "yes"}).status_code == 403


def test_the_routes_are_those_of_the_command(client_with, capsys):
    response = client_with("view_route").get(url("route"))
    call_command("wsdeny", "routes")
    printed = capsys.readouterr().out
    shown = rows(response)
    assert [line.split()[1] for line in printed.splitlines() if line.startswith(("websocket", "http"))] == [
        row[1] for row in shown
    ]
    assert notes(response) == [printed.splitlines()[-1]]
    assert shown[1] == [
        *("websocket", "/ws/monitor/", "guarded", "IsStaff()", "decorator"),
        *("testproject.chat.consumers.MonitorConsumer", "hooks begin, tell"),
    ]


def test_a_dotted_name_may_be_broken_after_its_dots(client_with):
    assert "testproject.<wbr>chat.<wbr>" in client_with("view_route").get(url("route")).content.decode()


def test_a_search_narrows_the_rows_and_many_are_cut(client_with, monkeypatch):
    response = client_with("view_route").get(url("route"), {"q": "MONITOR"})
    assert {row[1] for row in rows(response)} == {"/ws/monitor/", "/monitor/"}
    monkeypatch.setattr(pages, "_MOST", 1)
    response = client_with("view_route", name="other").get(url("route"), {"q": "MONITOR"})
    assert (len(rows(response)), notes(response)[-1]) == (1, "1 of 2 are shown.")


def test_a_site_whose_modules_fail_is_told(client_with, settings):
    settings.ASGI_APPLICATION = "tests.nowhere.application"
    response = client_with("view_route").get(url("route"))
    assert (rows(response), notes(response)) == ([], ["The routes cannot be read: ModuleNotFoundError"])


room = login_required(accept)


@pytest.fixture
def opened(headers_of):
    """A function that opens a socket of a user."""

    async def opened(name, path="/room/"):
        return await Opened(room, path, headers=headers_of(name)).accepted()

    return opened


async def test_the_selected_socket_is_closed_once_that_is_confirmed_and_no_other(client_with, opened, change, users):
    alice = f"alice ({users['alice'].pk})"
    client = await change(lambda: client_with("view_opensocket", "close_opensocket"))
    first, second = [await opened("alice") for _ in range(2)]
    page = await change(lambda: client.get(url("opensocket")))
    assert [row[:3] for row in rows(page)] == [["/room/", alice, ""]] * 2
    older = {"_selected_action": keys(page)[1]}  # The newest is first.
    asked = await change(lambda: client.post(url("opensocket"), older))
    assert (b"Are you sure?" in asked.content, keys(asked)) == (True, [older["_selected_action"]])
    assert first.server.kinds == second.server.kinds == ["websocket.accept"]
    done = await change(lambda: client.post(url("opensocket"), {**older, "post": "yes"}, follow=True))
    assert b"The selected sockets are being closed." in done.content
    assert await first.close() == (4403, "revoked")
    await second.stays()
    (entry,) = await change(lambda: list(LogEntry.objects.all()))
    assert (entry.object_repr, entry.is_deletion()) == (f"/room/ {alice}", True)


async def test_the_permission_to_view_does_not_close(client_with, opened, change):
    client = await change(lambda: client_with("view_opensocket"))
    alice = await opened("alice")
    page = await change(lambda: client.get(url("opensocket")))
    assert (keys(page), b"Close selected" in page.content) == ([], False)
    key = (await change(sockets))[0]
    post = {"_selected_action": f"{key['process']} {key['since']!r}", "post": "yes"}
    assert (await change(lambda: client.post(url("opensocket"), post))).status_code == 403
    await alice.stays()


async def test_a_post_without_the_token_of_the_form_closes_nothing(client_with, opened, change):
    client = await change(lambda: client_with(None, enforce_csrf_checks=True))
    alice = await opened("alice")
    page = await change(lambda: client.get(url("opensocket")))
    post = {"_selected_action": keys(page), "post": "yes"}
    assert (await change(lambda: client.post(url("opensocket"), post))).status_code == 403
    post["csrfmiddlewaretoken"] = client.cookies["csrftoken"].value
    assert (await change(lambda: client.post(url("opensocket"), post))).status_code == 302
    assert await alice.close() == (4403, "revoked")


@pytest.mark.parametrize("selected", [[], ["gone 1.0"]])
def test_a_selection_of_no_open_socket_is_told(client_with, selected):
    response = client_with(None).post(url("opensocket"), {"_selected_action": selected, "post": "yes"}, follow=True)
    assert b"No open socket is selected." in response.content


def test_it_says_where_sockets_are_not_known(client_with, settings):
    client = client_with(None)
    assert notes(client.get(url("opensocket"))) == [
        "No channel layer leads to other processes: these are the sockets of this process."
    ]
    settings.CHANNELS_WSDENY = {"LIVE": False}
    assert notes(client.get(url("opensocket"))) == ["LIVE is off: which sockets are open is not known."]


async def test_a_layer_that_is_away_is_told_and_own_sockets_are_closed(client_with, opened, change, settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.Away"}}
    client = await change(lambda: client_with(None))
    alice = await opened("alice")
    page = await change(lambda: client.get(url("opensocket")))
    assert (len(rows(page)), notes(page)) == (1, ["The sockets of other processes are not known: ConnectionError"])
    post = {"_selected_action": keys(page), "post": "yes"}
    done = await change(lambda: client.post(url("opensocket"), post, follow=True))
    assert b"The sockets of other processes could not be closed: ConnectionError" in done.content
    assert await alice.close() == (4403, "revoked")


class Away:
    async def fail(self, *arguments):
        raise ConnectionError

    group_send = group_add = new_channel = receive = fail


def act(rf, users):
    """The messages that the admin shows once the action was run on these users."""
    request = rf.post("/")
    request._messages = CookieStorage(request)
    model_admin = ModelAdmin(User, AdminSite())
    actions.close_sockets(model_admin, request, User.objects.filter(username__in=users))
    return [str(message) for message in get_messages(request)]


async def test_the_action_closes_the_sockets_of_the_selected_users(opened, rf, change):
    alice, bob = [await opened(name) for name in ("alice", "bob")]
    assert await change(lambda: act(rf, ["alice"])) == ["The sockets of the selected users are closed."]
    assert await alice.close() == (4403, "revoked")
    await bob.leave()


async def test_the_action_tells_of_a_layer_that_is_away_and_closes_what_is_here(opened, rf, change, settings):
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.Away"}}
    sockets = [await opened(name) for name in ("alice", "bob")]
    told = await change(lambda: act(rf, ["alice", "bob"]))
    assert told == ["The sockets of other processes could not be closed: ConnectionError"]
    for each in sockets:
        assert await each.close() == (4403, "revoked")


def test_those_who_may_change_users_may_run_the_action():
    assert actions.close_sockets.allowed_permissions == ["change"]


@pytest.fixture
def denied(client_with):
    """A function to the rows of the page, but for the time."""
    client = client_with(None)
    return lambda: [row[1:] for row in rows(client.get(url("denial")))]


async def test_denials_are_listed_the_newest_first_without_query_strings(headers_of, denied, change, users):
    await knock(application, "/ws/monitor/?token=secret")  # which is sent as it was encoded before
    await knock(application, "/ws/monitor/?token=secret", headers=headers_of("alice"))
    await knock(application, "/ws/nowhere/")
    await knock(application, "/ws/status/")
    assert await change(denied) == [
        ["404", "not_found", "/ws/nowhere/", "", ""],
        ["403", "permission_denied", "/ws/monitor/", f"alice ({users['alice'].pk})", "IsStaff()"],
        ["401", "not_authenticated", "/ws/monitor/", "", "IsStaff()"],
    ]


def test_a_view_that_is_denied_is_listed(client, denied):
    client.get("/monitor/")
    assert denied() == [["401", "not_authenticated", "/monitor/", "", "IsStaff()"]]


async def test_what_is_only_reported_is_not_listed(denied, change):
    assert (await knock(public(require(IsStaff(), enforce=False)(accept)), "/room/")).status == 101
    assert await change(denied) == []


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/ws/token/0123/", "/ws/[redacted]"),
        ("/ws/eyJhbGciOiJIUzI1NiJ9.e30.c2ln/", "/ws/[redacted]"),
        ("/ws/a\u202eb\n/", "/ws/a\\u202eb\\n/"),
        ("/" + 300 * "x", "/" + 199 * "x"),
        (f"/{HOSTILE}/", f"/{HOSTILE}/"),
    ],
)
async def test_a_path_shows_no_secret_and_no_control_character_and_is_cut(denied, change, path, shown):
    await knock(application, path)
    assert (await change(denied))[0][2] == shown


async def test_names_and_paths_are_escaped(django_user_model, client_with, change, headers_of):
    client = await change(lambda: client_with(None))
    await change(lambda: django_user_model.objects.filter(username="bob").update(username=HOSTILE))
    opened = await Opened(room, f"/{HOSTILE}/", headers=headers_of("bob")).accepted()
    await knock(application, f"/{HOSTILE}/", headers=headers_of("bob"))
    listed = await change(lambda: client.get(url("opensocket")))
    answers = [
        await change(lambda: client.get(url("denial"), {"q": HOSTILE})),
        listed,
        await change(lambda: client.post(url("opensocket"), {"_selected_action": keys(listed)})),
    ]
    for answer in answers:
        assert HOSTILE not in answer.content.decode()
        assert "&lt;script&gt;alert(1)" in answer.content.decode()
    await opened.leave()


def test_a_bounded_number_of_denials_is_kept_and_the_newest_are(recent):
    for number in range(1000):
        recent.add(denials.Denied(float(number), 404, "", "", "", ""))
        recent.write()
    assert [each.time for each in recent.read()] == [float(number) for number in range(999, 799, -1)]
    assert len(cache.get(denials._KEY)) == 200


def test_a_flood_begins_one_write_in_a_second(recent, monkeypatch):
    written = []
    monkeypatch.setattr(denials, "submit_in_background", written.append)
    for number in range(1000):
        recent.add(denials.Denied(float(number), 404, "", "", "", ""))
    (timer,) = Timer.begun
    assert (timer.interval, timer.daemon) == (1.0, True)
    timer.function()
    recent.add(denials.Denied(1000.0, 404, "", "", "", ""))
    assert (len(Timer.begun), written) == (2, [recent.write])
    Timer.begun.clear()  # as in a forked child, in which threads do not go on
    recent.add(denials.Denied(1001.0, 404, "", "", "", ""))
    assert len(Timer.begun) == 1


def test_the_time_of_another_timer_may_come_while_one_is_made(recent, monkeypatch):
    monkeypatch.setattr(denials, "submit_in_background", lambda write: Future())
    # It is set just before the start.
    monkeypatch.setattr(Timer, "daemon", property(None, lambda timer, value: recent._begin_write()), raising=False)
    recent.add(denials.Denied(1.0, 404, "", "", "", ""))
    assert len(Timer.begun) == 1


def test_a_cache_that_hangs_keeps_one_thread(recent, monkeypatch):
    begun, write = [], Future()
    monkeypatch.setattr(denials, "submit_in_background", lambda function: begun.append(function) or write)
    recent._begin_write()
    recent._begin_write()
    assert len(begun) == 1
    write.set_result(None)
    recent._begin_write()
    assert len(begun) == 2


def test_the_denials_of_two_processes_are_listed_together(recent):
    other = denials.RecentDenials()
    for number, process in enumerate([recent, other, recent]):
        process.add(denials.Denied(float(number), 404, "", f"/{number}/", "", ""))
        process.write()
    assert [each.path for each in other.read()] == ["/2/", "/1/", "/0/"]
    assert recent.read() == other.read()


def test_of_two_processes_that_write_at_once_neither_is_lost(recent, monkeypatch):
    other = denials.RecentDenials()
    for number, process in enumerate([recent, other]):
        process.add(denials.Denied(float(number), 404, "", f"/{number}/", "", ""))
    Timer.begun.clear()
    merged = recent._merged
    with monkeypatch.context() as patched:  # The other writes once this one has read the cache.
        patched.setattr(recent, "_merged", lambda stored: other.write() or merged(stored))
        recent.write()
    assert [each[3] for each in cache.get(denials._KEY)] == ["/0/"]
    monkeypatch.setattr(denials, "submit_in_background", lambda write: write())
    Timer.run_all()
    assert [each[3] for each in cache.get(denials._KEY)] == ["/1/", "/0/"]


def test_a_write_is_repeated_until_the_cache_has_it_a_few_times_at_most(recent, settings, monkeypatch):
    monkeypatch.setattr(denials, "submit_in_background", lambda write: write())
    for backend, writes in {"locmem.LocMemCache": 2, "dummy.DummyCache": 1 + denials._REPEATS}.items():
        settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{backend}"}}
        recent.add(denials.Denied(1.0, 404, "", backend, "", ""))
        assert Timer.run_all() == writes, backend


class Broken(LocMemCache):
    def get(self, *arguments, **options):
        raise ConnectionError("redis://:password@host")

    set = get


async def test_a_cache_that_fails_changes_no_answer_and_is_told(client_with, recent, change, settings, monkeypatch):
    monkeypatch.setattr(log, "_warned", set())
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.Broken"}}
    assert (await knock(application, "/ws/nowhere/")).status == 404
    recent.write()
    response = await change(lambda: client_with(None).get(url("denial")))
    assert notes(response) == ["The cache cannot be read (ConnectionError): these are the denials of this process."]
    assert [row[3] for row in rows(response)] == ["/ws/nowhere/"]
    assert b"password@" not in response.content


def test_it_says_whose_denials_are_shown(client_with, settings, caplog, tmp_path):
    client = client_with(None)
    assert notes(client.get(url("denial"))) == [
        "The cache is one for each process: these are the denials of this process."
    ]
    file_cache = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": tmp_path}
    settings.CACHES = {"default": file_cache}
    caplog.set_level(logging.ERROR, "channels_wsdeny")
    assert notes(client.get(url("denial"))) == [
        "The logger channels_wsdeny takes no warnings, so denials are not noted."
    ]


async def test_a_log_record_passes_also_if_the_denial_cannot_be_noted(recent, caplog, monkeypatch):
    monkeypatch.setattr(recent, "add", None)
    assert (await knock(application, "/ws/nowhere/")).status == 404
    assert "Denied /ws/nowhere/: 404 not_found" in caplog.messages


@pytest.mark.parametrize("missing", ["channels_wsdeny", "django.contrib.admin"])
def test_an_app_that_is_missing_is_named(settings, missing):
    with pytest.raises(ImproperlyConfigured, match=rf"'channels_wsdeny.contrib.admin' needs '{missing}' in INSTALLED"):
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != missing]


OTHER = """
import types, sys
from testproject import settings as own
from tests.support.set_up import set_up

set_up(
    INSTALLED_APPS=["tests.contrib.accounts", *[app for app in own.INSTALLED_APPS if app != "testproject.chat"]],
    AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.ModelBackend"],
    AUTH_USER_MODEL="accounts.Account",
    ROOT_URLCONF="urls",
    MIDDLEWARE=[path for path in own.MIDDLEWARE if "Mirror" not in path],
    LANGUAGE_CODE="ar",
)
from django.contrib import admin
from django.test import Client
from django.urls import path

from channels_wsdeny.contrib.admin.admin import DenialAdmin, RouteAdmin, SocketAdmin
from channels_wsdeny.contrib.admin.denials import Denied, recent
from channels_wsdeny.contrib.admin.models import Denial, OpenSocket, Route

site = admin.AdminSite("ops")
for model, model_admin in ((Route, RouteAdmin), (OpenSocket, SocketAdmin), (Denial, DenialAdmin)):
    site.register(model, model_admin)
sys.modules["urls"] = types.ModuleType("urls")
sys.modules["urls"].urlpatterns = [path("ops/", site.urls)]

from django.contrib.auth import get_user_model

user = get_user_model().objects.create(email="boss@example.com", is_superuser=True)
recent._own.extend(Denied(1.0, 403, "permission_denied", "/a/", key, "") for key in (str(user.pk), "of a token's user"))
client = Client()
client.force_login(user)
for page in ("route", "opensocket", "denial"):
    response = client.get(f"/ops/channels_wsdeny_admin/{page}/")
    content = response.content.decode().replace("<wbr>", "")
    print(response.status_code, 'dir="rtl"' in content, 'href="/ops/"' in content)
print(f"boss@example.com ({user.pk})" in content, "of a token&#x27;s user" in content)
"""


@pytest.mark.servers
def test_another_admin_site_another_user_model_and_another_direction():
    out, errors = run_python(OTHER)
    assert out.split("\n") == ["200 True True"] * 3 + ["True True"], errors
