"""A site with django-guardian, in a process of its own: it prints the answers to the clients of two rooms, as JSON.

python -m tests.support.guardian_site DATABASE PAGE

PAGE is permissions.md, or cookbook.md: then it prints the answer to one who is to be invited, and how the sockets are
closed of one who was, by himself and by his group, and of anonymous clients, and is not any more.
"""

import asyncio
import json
import sys

from asgiref.sync import sync_to_async

from tests.docs.pages import run_snippets, titled
from tests.support.clients import knock
from tests.support.set_up import set_up

PAGE, RECIPES = titled("permissions.md"), titled("cookbook.md")
SETTINGS = (PAGE if sys.argv[2] == "permissions.md" else RECIPES)["settings of guardian"]
chosen = {"INSTALLED_APPS": []}
exec(SETTINGS, chosen)
set_up(
    *chosen["INSTALLED_APPS"],
    AUTHENTICATION_BACKENDS=chosen["AUTHENTICATION_BACKENDS"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
)

from channels.routing import URLRouter  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.contrib.auth.models import AnonymousUser, Group  # noqa: E402
from django.urls import path  # noqa: E402
from guardian.shortcuts import assign_perm  # noqa: E402
from guardian.utils import get_anonymous_user  # noqa: E402

from channels_wsdeny import DenyMiddlewareStack  # noqa: E402
from testproject.chat.models import Room  # noqa: E402
from tests.support.opened import Opened  # noqa: E402

page = run_snippets("permissions.md", [PAGE["rooms.py"], PAGE["consumers with guardian"]])
CONSUMERS = {"private": page.PrivateRoomConsumer, "public": page.PublicRoomConsumer}
APP = DenyMiddlewareStack(URLRouter([path(f"{url}/<slug:slug>/", each.as_asgi()) for url, each in CONSUMERS.items()]))


def clients():
    """alice and the group of carol may see the lobby, everybody may see the hall; by name."""
    users = {name: get_user_model().objects.create(username=name) for name in ("alice", "bob", "carol")}
    rooms = {slug: Room.objects.create(slug=slug, name=slug) for slug in ("lobby", "hall")}
    hosts = Group.objects.create(name="hosts")
    users["carol"].groups.add(hosts)
    for holder, slug in ((users["alice"], "lobby"), (hosts, "lobby"), (get_anonymous_user(), "hall")):
        assign_perm("chat.view_room", holder, rooms[slug])
    return {**users, "stranger": AnonymousUser()}


async def main(users):
    found = {}
    for url in ("/private/lobby/", "/private/attic/", "/public/lobby/", "/public/hall/"):
        answers = {name: await knock(APP, url, user=user) for name, user in users.items()}
        found[url] = {name: [answer.status, answer.header("x-room")] for name, answer in answers.items()}
    return found


async def invite(users):
    page = run_snippets("cookbook.md", [RECIPES[title] for title in ("backends.py", "rooms.py", "guardian")])
    app = DenyMiddlewareStack(URLRouter([path("<slug:slug>/", page.RoomConsumer.as_asgi())]))
    bob, room, guests = users["bob"], await Room.objects.aget(slug="lobby"), await Group.objects.acreate(name="guests")
    await bob.groups.aadd(guests)
    found = [(await knock(app, "/lobby/", user=bob)).status]
    for holder in (bob, guests):
        await sync_to_async(page.invite)(holder, room)
        socket = await Opened(app, "/lobby/", user=await get_user_model().objects.aget(username="bob")).accepted()
        await sync_to_async(page.uninvite)(holder, room)
        found.append(await socket.close())
    public = await Opened(APP, "/public/hall/").accepted()
    hall = await Room.objects.aget(slug="hall")
    await sync_to_async(lambda: page.uninvite(get_anonymous_user(), hall))()
    return [*found, await public.close()]


if __name__ == "__main__":
    run = main if sys.argv[2] == "permissions.md" else invite
    print(json.dumps(asyncio.run(run(clients()))))
