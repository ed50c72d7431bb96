"""Consumers and views that know the user, and write to the database and the session."""

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.models import Group
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny.decorators import login_required, permission_required, public


@login_required
class Members(AsyncJsonWebsocketConsumer):
    """Creates a group of each text, and sends the user's name and the number of groups."""

    async def receive_json(self, content):
        await database_sync_to_async(Group.objects.create)(name=content)
        await self.send_json([self.scope["user"].username, await Group.objects.acount()])


@login_required
class SyncMembers(JsonWebsocketConsumer):
    def receive_json(self, content):
        Group.objects.create(name=content)
        self.send_json([self.scope["user"].username, Group.objects.count()])


Founders = permission_required("auth.add_group")(type("Founders", (AsyncJsonWebsocketConsumer,), {}))
Open = public(type("Open", (AsyncJsonWebsocketConsumer,), {}))


@public
class Count(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send_json(await Group.objects.acount())


@public
class Visits(AsyncJsonWebsocketConsumer):
    """Counts the sockets of a session."""

    async def connect(self):
        self.scope["session"]["visits"] = self.scope["session"].get("visits", 0) + 1
        await self.accept()
        await self.send_json(self.scope["session"]["visits"])


def whoami(request):
    return HttpResponse(f"{request.user.username} {request.headers.get('Accept-Language', '')}")


def log_in(request, username):
    user = get_user_model().objects.get(username=username)
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    return HttpResponse("welcome")


def log_out(request):
    logout(request)
    return HttpResponse("bye")


urlpatterns = [path("whoami/", whoami), path("login/<username>/", log_in), path("logout/", log_out)]
