"""The pages of the test project, and its permissions on rooms."""

import re

import pytest
from django.core.management import call_command
from django.urls import reverse

from testproject.chat.management.commands.demo import TOKEN
from testproject.chat.models import Room

VIEW, POST = "chat.view_room", "chat.post_room"


def test_members_read_and_write_and_staff_read(alice, bob, staff, lobby):
    allowed = {
        user.username: [user.has_perm(permission, lobby) for permission in (VIEW, POST)] for user in (alice, bob, staff)
    }
    assert allowed == {"alice": [True, True], "bob": [False, False], "staff": [True, False]}
    assert not alice.has_perm("chat.delete_room", lobby)
    assert not alice.has_perm(VIEW)
    alice.is_active = False
    assert not alice.has_perm(VIEW, lobby)


def test_a_user_logs_in_to_the_rooms_and_out_to_the_login_page(client, alice, lobby):
    assert b'name="password"' in client.get(reverse("login")).content
    alice.set_password("secret")
    alice.save()
    response = client.post(reverse("login"), {"username": "alice", "password": "secret"})
    assert response["Location"] == reverse("room_list")
    assert client.post(reverse("logout"))["Location"] == reverse("login")
    response = client.get(reverse("room_list"), headers={"accept": "text/html"})
    assert (response.status_code, response["Location"]) == (302, f"{reverse('login')}?next=/")


def test_the_room_list_names_every_room_and_marks_those_of_a_member(client_of, alice, lobby):
    Room.objects.create(name="Engineering", slug="engineering")
    content = client_of(alice).get(reverse("room_list")).content
    assert (content.count(b"Lobby"), content.count(b"Engineering"), content.count(b"badge")) == (1, 1, 1)


def test_the_room_page_names_its_socket_to_members_and_others(client_of, alice, bob, lobby):
    for user in (alice, bob):
        response = client_of(user).get(lobby.get_absolute_url())
        assert b'data-socket="/ws/rooms/lobby/"' in response.content
    assert client_of(alice).get(reverse("room", args=["nowhere"])).status_code == 404


def test_staff_see_the_monitor_and_who_is_a_member_and_others_do_not(client_of, staff, alice, bob, lobby):
    assert [client_of(user).get(reverse("monitor")).status_code for user in (staff, alice)] == [200, 403]
    content = client_of(staff).get(lobby.get_absolute_url()).content.decode()
    for button in ("Remove alice", "Add bob"):
        assert button in content
    assert "bob" not in client_of(alice).get(lobby.get_absolute_url()).content.decode()


def test_staff_alone_add_and_remove_members(client_of, staff, alice, bob, lobby):
    address = reverse("change_members", args=["lobby"])
    assert client_of(alice).post(address, {"add": "bob"}).status_code == 403
    for change, members in [({"add": "bob"}, [alice, bob]), ({"remove": "alice"}, [bob]), ({"add": "nobody"}, [bob])]:
        assert client_of(staff).post(address, change)["Location"] == lobby.get_absolute_url()
        assert list(lobby.members.order_by("username")) == members


@pytest.mark.django_db
def test_the_page_to_try_sockets_on_is_for_all_and_has_the_token_of_the_demo(client):
    assert f'value="{TOKEN}"' in client.get(reverse("try_it")).content.decode()


def test_pages_have_no_inline_scripts_or_styles_and_escape_names(client_of, staff, lobby):
    """A strict Content-Security-Policy would block the former."""
    staff.username = lobby.name = "<b>"
    staff.save()
    lobby.save()
    for address in ("/", lobby.get_absolute_url(), "/monitor/", "/try/"):
        content = client_of(staff).get(address).content.decode()
        assert "<script>" not in content
        assert re.search(r"<[^>]*\s(on\w+|style)=", content) is None, address
        assert address == "/monitor/" or "&lt;b&gt;" in content, address


@pytest.mark.django_db
def test_static_files_come_without_a_web_server(client):
    assert client.get("/static/chat/chat.js")["Content-Type"] == "text/javascript"
    assert b"GuardedWebSocket" in client.get("/static/channels_wsdeny/wsdeny.js").content
    assert client.get("/static/chat/chat.css")["Content-Type"] == "text/css"
    assert client.get("/static/chat/icon.svg")["Content-Type"] == "image/svg+xml"
    for path in ("chat/nothing.js", "chat"):
        assert client.get(f"/static/{path}").status_code == 404


@pytest.mark.django_db
def test_the_migrations_are_complete():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


def test_who_is_denied_a_page_or_finds_none_gets_a_page_of_the_demo(client_of, alice):
    for address, status in (("/monitor/", 403), ("/nowhere/", 404)):
        response = client_of(alice).get(address, headers={"accept": "text/html"})
        assert (response.status_code, b"Back to the rooms" in response.content) == (status, True)
