"""The action of the admin of users."""

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.messages import get_messages
from django.contrib.messages.storage.cookie import CookieStorage

from channels_wsdeny.contrib import admin as actions
from channels_wsdeny.decorators import login_required
from tests.support.opened import Opened
from tests.support.policies import accept

pytestmark = pytest.mark.django_db


class UserAdmin(admin.ModelAdmin):
    actions = (actions.close_sockets,)


def act(rf, users):
    """The messages that the admin shows once the action was run on these users."""
    request = rf.post("/")
    request._messages = CookieStorage(request)
    model_admin = UserAdmin(get_user_model(), admin.AdminSite())
    actions.close_sockets(model_admin, request, get_user_model().objects.filter(username__in=users))
    return [str(message) for message in get_messages(request)]


async def test_the_action_closes_the_sockets_of_the_selected_users(headers_of, rf, change):
    alice, bob = [
        await Opened(login_required(accept), headers=headers_of(name)).accepted() for name in ("alice", "bob")
    ]
    assert await change(lambda: act(rf, ["alice"])) == ["The sockets of the selected users are closed."]
    assert await alice.close() == (4403, "revoked")
    await bob.leave()


def test_a_layer_that_is_away_is_told(users, rf, monkeypatch):
    def revoke(user):
        raise ConnectionError

    monkeypatch.setattr(actions, "revoke", revoke)
    assert act(rf, ["alice"]) == ["The sockets of other processes could not be closed: ConnectionError"]


def test_those_who_may_change_users_may_run_it():
    assert actions.close_sockets.allowed_permissions == ["change"]
