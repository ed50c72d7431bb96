import pytest
from django.contrib.auth.models import User
from django.test import Client

from testproject.chat.models import Room


def user_named(name):
    @pytest.fixture
    def user(db):
        return User.objects.create(username=name, is_staff=name == "staff")

    return user


alice, bob, staff = map(user_named, ("alice", "bob", "staff"))


@pytest.fixture
def lobby(alice):
    """A room of which alice is a member."""
    room = Room.objects.create(name="Lobby", slug="lobby")
    room.members.add(alice)
    return room


@pytest.fixture
def client_of():
    def client_of(user):
        client = Client()
        client.force_login(user)
        return client

    return client_of
