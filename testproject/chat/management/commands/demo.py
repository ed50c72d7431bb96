import errno
import shlex
import socket
from argparse import ArgumentTypeError

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.contrib.auth.models import Permission
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import BaseCommand, CommandError, call_command
from django.utils import timezone

from channels_wsdeny.daphne.__main__ import CommandLineInterface
from testproject.chat.models import Room, Token

# Name, password, is_staff.
PEOPLE = (
    ("alice", "alice-demo", False),
    ("bob", "bob-demo", False),
    ("staff", "staff-demo", True),
)
ROOMS = ("Engineering", "Lobby")
# Of alice. A real site makes its secrets by chance.
TOKEN = "alice-demo-token"
CSRF_TOKEN = "demo" * 8

HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)

WELCOME = """
{intro} {origin}/

  alice  alice-demo   is a member of both rooms, and chats
  bob    bob-demo     is a member of none, and is told why he cannot
  staff  staff-demo   reads every room, has a monitor, and sees sockets and denials in the admin

Three handshakes that are denied.
401, for the client is not logged in:

  {unauthenticated}

403, for bob is no member:

  {forbidden}

404, for there is no such socket:

  {unrouted}

And three that are accepted (101), and end after a second.
With alice's token, as a program sends it:

  {token}

With a ticket that alice's page has asked for, good for one handshake within 30 seconds:

  {ticket}

Three times in a minute, and then a 429:

  {throttled}

Or in a browser: {origin}/try/
"""


class Command(BaseCommand):
    help = "Prepares the demo (doing so again changes nothing) and runs it on our Daphne."

    def add_arguments(self, parser):
        parser.add_argument("--host", default="127.0.0.1", help="Address to listen on.")
        parser.add_argument("--port", type=port_number, default=8000, help="Port to listen on.")
        parser.add_argument(
            "--setup-only",
            action="store_true",
            help="Start no server: run testproject.asgi:application on one of your choice.",
        )

    def handle(self, *, host, port, setup_only, **options):
        if not setup_only:
            check_port(host, port)
        call_command("migrate", interactive=False, verbosity=0)
        create_people()
        create_rooms()
        create_token()
        intro = "Ready for a server at" if setup_only else "The chat is at"
        self.stdout.write(welcome(intro, origin_of(host, port)))
        self.stdout.flush()
        if not setup_only:
            CommandLineInterface().run(["-b", host, "-p", str(port), "testproject.asgi:application"])


def port_number(text):
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ArgumentTypeError(f"{text!r} is no port. Give a number from 1 to 65535.")
    return int(text)


def check_port(host, port):
    """Say clearly, and before anything is done, that the server could not start."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(f"Port {port} is taken. Choose another one with --port.") from error
        raise CommandError(f"Cannot listen on port {port} of {host}: {error}") from error


def origin_of(host, port):
    """Where a browser on this machine finds the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def create_people():
    users = get_user_model().objects
    for name, password, is_staff in PEOPLE:
        if not users.filter(username=name).exists():
            users.create_user(name, password=password, is_staff=is_staff)
    permissions = Permission.objects.filter(content_type__app_label="channels_wsdeny_admin")
    users.get(username="staff").user_permissions.add(*permissions)


def create_rooms():
    for name in ROOMS:
        room, created = Room.objects.get_or_create(slug=name.lower(), defaults={"name": name})
        if created:
            room.members.add(get_user_model().objects.get(username="alice"))


def create_token():
    alice = get_user_model().objects.get(username="alice")
    Token.objects.get_or_create(digest=Token.digest_of(TOKEN), defaults={"user": alice})


def welcome(intro, origin):
    bob = f"{settings.SESSION_COOKIE_NAME}={session_key_for_curl('bob')}"
    return WELCOME.format(
        intro=intro,
        origin=origin,
        unauthenticated=curl(f"{origin}/ws/rooms/lobby/"),
        forbidden=curl("-b", bob, f"{origin}/ws/rooms/lobby/"),
        unrouted=curl(f"{origin}/ws/nowhere/"),
        token=curl("-H", f"Authorization: Bearer {TOKEN}", f"{origin}/ws/rooms/lobby/", seconds=1),
        ticket=ticket_for_curl(origin),
        throttled=curl(f"{origin}/ws/knock/", seconds=1),
    )


def ticket_for_curl(origin):
    """Ask for a ticket as alice's page does, and use it."""
    cookies = f"{settings.SESSION_COOKIE_NAME}={session_key_for_curl('alice')}; csrftoken={CSRF_TOKEN}"
    form = ("-b", cookies, "-H", f"X-CSRFToken: {CSRF_TOKEN}", "-d", "path=/ws/rooms/lobby/")
    asked = shlex.join(["curl", "-s", *form, f"{origin}/ticket/"])
    used = curl(f"{origin}/ws/rooms/lobby/?ticket=", seconds=1) + '"$TICKET"'
    return f"""TICKET=$({asked} | cut -d '"' -f 4); {used}"""


def curl(*arguments, seconds=10):
    headers = [part for header in HANDSHAKE for part in ("-H", header)]
    return shlex.join(["curl", "-i", "--max-time", str(seconds), *headers, *arguments])


def session_key_for_curl(username):
    """A session of the user's: the one made for curl by an earlier run, while it is good."""
    user = get_user_model().objects.get(username=username)
    content = {
        SESSION_KEY: str(user.pk),
        BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0],
        HASH_SESSION_KEY: user.get_session_auth_hash(),
        "made_for": "curl",
    }
    for session in Session.objects.filter(expire_date__gt=timezone.now()):
        if session.get_decoded() == content:
            return session.session_key
    session = SessionStore()
    session.update(content)
    session.create()
    return session.session_key
