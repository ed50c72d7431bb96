"""Hooks and receivers of signals for servers under test, which `test_hooks` asks by the query ``?do=``."""

import asyncio
import logging

from django.contrib.sessions.models import Session
from django.dispatch import receiver

from channels_wsdeny import Hooks
from channels_wsdeny.signals import handshake_accepted, handshake_denied

logger = logging.getLogger("tests.servers")
hooks = Hooks()
#: What holds the requests that wait in a hook, by their token.
HELD: dict[str, asyncio.Event] = {}


def what(request):
    return request.GET.get("do", "")


async def hold(request, where):
    if what(request) == f"hold-in-{where}":
        event = HELD[request.GET["token"]] = asyncio.Event()
        logger.info("%s holds %s", where, request.GET["token"])
        await event.wait()


@hooks.on_request(blocking=False)
def begin(request):
    request.ctx.seen = request.headers.get("X-Word", "none")


@hooks.on_request
async def hold_early(request):
    if what(request) == "release":
        HELD.pop(request.GET["token"]).set()
    await hold(request, "request")


@hooks.on_response
async def hold_late(request, response):
    await hold(request, "response")


@hooks.on_response
def mark(request, response):
    response["X-Word"] = request.ctx.seen
    response["X-Status"] = str(response.status_code)
    response.set_cookie("one", "1")
    response.set_cookie("two", "2", path="/two", httponly=True)


@hooks.around
async def surround(request, call_next):
    response = await call_next(request)
    response["X-Around"] = "1"
    return response


@receiver([handshake_accepted, handshake_denied])
def note(signal, request, response, **kwargs):
    Session.objects.count()
    logger.info("%s %s: %s", signal, request.path, response.status_code)
