import pytest
from django.contrib.auth.models import User
from django.test import Client

from testproject.chat.models import Room


@pytest.fixture
def alice(db):
    return User.objects.create(username="alice")


@pytest.fixture
def bob(db):
    return User.objects.create(username="bob")


@pytest.fixture
def staff(db):
    return User.objects.create(username="staff", is_staff=True)


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
