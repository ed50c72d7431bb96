"""A site that writes to its database from sockets and views, for clients with accounts."""

from __future__ import annotations

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.auth import get_user_model, login, logout
from django.contrib.auth.models import Group
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

from channels_wsdeny import DenyMiddlewareStack
from channels_wsdeny.decorators import login_required, permission_required, public


@login_required
class Members(AsyncJsonWebsocketConsumer):
    """Makes a group of each text, and tells how many there are."""

    async def receive_json(self, content):
        await database_sync_to_async(Group.objects.create)(name=content)
        await self.send_json([self.scope["user"].username, await Group.objects.acount()])


@login_required
class SyncMembers(JsonWebsocketConsumer):
    def receive_json(self, content):
        Group.objects.create(name=content)
        self.send_json([self.scope["user"].username, Group.objects.count()])


@permission_required("auth.add_group")
class Founders(AsyncJsonWebsocketConsumer):
    pass


@public
class Count(AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.send_json(await Group.objects.acount())


@public
class Visits(AsyncJsonWebsocketConsumer):
    """Counts a visitor's sockets in the session."""

    async def connect(self):
        self.scope["session"]["visits"] = self.scope["session"].get("visits", 0) + 1
        await self.accept()
        await self.send_json(self.scope["session"]["visits"])


def whoami(request):
    return HttpResponse(request.user.username or "nobody")


def log_in(request, username):
    user = get_user_model().objects.get(username=username)
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    return HttpResponse("welcome")


def log_out(request):
    logout(request)
    return HttpResponse("bye")


@login_required
def members(request):
    return HttpResponse("hello")


def accepted_language(request):
    return HttpResponse(request.headers.get("Accept-Language", ""))


urlpatterns = [
    path("whoami/", whoami),
    path("login/<username>/", log_in),
    path("logout/", log_out),
    path("members/", members),
    path("language/", accepted_language),
]
websocket_urlpatterns = [
    path("ws/members/", Members.as_asgi()),
    path("ws/sync/", SyncMembers.as_asgi()),
    path("ws/founders/", Founders.as_asgi()),
    path("ws/count/", Count.as_asgi()),
    path("ws/visits/", Visits.as_asgi()),
]
application = DenyMiddlewareStack(
    ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter(websocket_urlpatterns)})
)
