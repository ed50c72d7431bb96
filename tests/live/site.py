"""What the server processes serve: sockets, and views that change what lets them in."""

import asyncio
import logging
import os
import time
from pathlib import Path

from django.contrib import admin
from django.contrib.auth import get_user_model, login, logout, update_session_auth_hash
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny.decorators import login_required, permission_required, public, require
from channels_wsdeny.live import revoke
from tests.support.case_site import Echo, SyncEcho
from tests.support.policies import AsyncCheck
from tests.support.scripted import echo


async def wait_for_file(request):
    logging.getLogger("tests.live").info("The policy waits.")
    while not Path(os.environ["LIVE_FILES"], "go").exists():
        await asyncio.sleep(0.02)
    return True


class SyncHanging(SyncEcho):
    """Returns from its disconnect() once the test is over."""

    def disconnect(self, code):
        until = time.monotonic() + 60
        while not Path(os.environ["LIVE_FILES"], "go").exists() and time.monotonic() < until:
            time.sleep(0.02)


sockets = {
    "members": login_required(type("Members", (Echo,), {})).as_asgi(),
    "sync": login_required(type("SyncMembers", (SyncEcho,), {})).as_asgi(),
    "editors": permission_required("auth.change_user")(type("Editors", (Echo,), {})).as_asgi(),
    "public": public(type("Public", (Echo,), {})).as_asgi(),
    "raw": login_required(echo),  # It is no consumer, and uses no channel layer.
    "sync-hanging": login_required(SyncHanging).as_asgi(),
    "waiting": require(AsyncCheck(wait_for_file))(type("Waiting", (Echo,), {})).as_asgi(),
}


def change(request, what):
    """Change something; `name` is the user that it is about."""
    if what == "reset":
        prepare()
    user = get_user_model().objects.filter(username=request.GET.get("name")).first()
    if what == "login":
        login(request, user, "django.contrib.auth.backends.ModelBackend")
    elif what == "logout":
        logout(request)
    elif what == "password":
        request.user.set_password("another")
        request.user.save()
        update_session_auth_hash(request, request.user)
    elif what == "ban":
        revoke(user=user, reason=f"banned {user.username}")
    elif what == "crowd":
        crowd = [get_user_model()(username=f"user{number}") for number in range(int(request.GET["count"]))]
        get_user_model().objects.bulk_create(crowd)
    return HttpResponse("done")


def prepare():
    """Users: anna and berta are in the group of editors; boss may do everything."""
    for model in (get_user_model(), Group, Session):
        model.objects.all().delete()
    editors = Group.objects.create(name="editors")
    editors.permissions.add(Permission.objects.get(codename="change_user"))
    for name in ("anna", "berta"):
        get_user_model().objects.create_user(name, password="old").groups.add(editors)
    get_user_model().objects.create_superuser("boss")


def end_sessions(name):
    """Delete the sessions of a user, in another process than the servers'."""
    key = str(get_user_model().objects.get(username=name).pk)
    for session in Session.objects.all():
        if session.get_decoded()["_auth_user_id"] == key:
            SessionStore(session.session_key).delete()


urlpatterns = [path("do/<what>/", change), path("admin/", admin.site.urls)]
