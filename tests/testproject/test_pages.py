import pytest
from django.core.management import call_command
from django.urls import reverse

from testproject.chat.models import Room


def test_the_login_page_asks_for_a_password(client, db):
    assert b'name="password"' in client.get(reverse("login")).content


def test_logging_in_leads_to_the_rooms(client, alice, lobby):
    alice.set_password("secret")
    alice.save()
    response = client.post(reverse("login"), {"username": "alice", "password": "secret"})
    assert response["Location"] == reverse("room_list")


def test_logging_out_leads_to_the_login_page(client_of, alice):
    assert client_of(alice).post(reverse("logout"))["Location"] == reverse("login")


def test_the_room_list_sends_an_anonymous_browser_to_the_login_page(client, db):
    response = client.get(reverse("room_list"), headers={"accept": "text/html"})
    assert response.status_code == 302
    assert response["Location"] == f"{reverse('login')}?next=/"


def test_the_room_list_names_every_room(client_of, bob, lobby):
    assert b"Lobby" in client_of(bob).get(reverse("room_list")).content


def test_the_room_list_marks_the_rooms_of_a_member(client_of, alice, lobby):
    Room.objects.create(name="Engineering", slug="engineering")
    assert client_of(alice).get(reverse("room_list")).content.count(b"badge") == 1


def test_the_room_page_names_its_socket(client_of, alice, lobby):
    response = client_of(alice).get(lobby.get_absolute_url())
    assert b'data-socket="/ws/rooms/lobby/"' in response.content


def test_the_room_page_shows_itself_to_a_non_member_who_will_be_told_why_not(client_of, bob, lobby):
    assert client_of(bob).get(lobby.get_absolute_url()).status_code == 200


def test_the_page_of_an_unknown_room_is_not_found(client_of, alice):
    assert client_of(alice).get(reverse("room", args=["nowhere"])).status_code == 404


def test_access_says_yes_to_a_member(client_of, alice, lobby):
    response = client_of(alice).get(reverse("room_access", args=["lobby"]))
    assert response.json() == {"room": "Lobby", "user": "alice"}


def test_access_tells_a_non_member_why_not(client_of, bob, lobby):
    response = client_of(bob).get(reverse("room_access", args=["lobby"]))
    assert response.status_code == 403
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == "permission_denied"


def test_access_answers_401_to_an_anonymous_script(client, lobby):
    response = client.get(reverse("room_access", args=["lobby"]))
    assert response.status_code == 401
    assert response.json()["code"] == "not_authenticated"


def test_access_to_an_unknown_room_is_not_found(client_of, alice):
    assert client_of(alice).get(reverse("room_access", args=["nowhere"])).status_code == 404


def test_the_monitor_page_opens_for_staff(client_of, staff):
    assert client_of(staff).get(reverse("monitor")).status_code == 200


def test_the_monitor_page_is_closed_to_members(client_of, alice):
    assert client_of(alice).get(reverse("monitor")).status_code == 403


@pytest.mark.parametrize(("name", "content_type"), [("chat.js", "text/javascript"), ("chat.css", "text/css")])
def test_static_files_come_without_a_web_server(client, name, content_type):
    assert client.get(f"/static/chat/{name}")["Content-Type"] == content_type


def test_an_unknown_static_file_is_not_found(client):
    assert client.get("/static/chat/nothing.js").status_code == 404


def test_the_migrations_are_complete(db):
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
