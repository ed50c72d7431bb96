"""A site with the packages for tokens, in a process of its own: it prints what each answers, as JSON.

    python -m tests.support.token_site DATABASE

The settings of each package are a snippet of docs/authentication.md.
"""

import asyncio
import json
import sys
from datetime import timedelta
from types import ModuleType

from django.conf import settings

from testproject import settings as own
from tests.docs.pages import DOCS, blocks
from tests.support.clients import fetch, knock
from tests.support.set_up import set_up

MIRROR = "channels_wsdeny.middleware.MirrorMiddleware"
set_up(
    "rest_framework",
    "rest_framework.authtoken",
    "knox",
    "oauth2_provider",
    "allauth",
    "allauth.account",
    "allauth.headless",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    MIDDLEWARE=[*own.MIDDLEWARE, "allauth.account.middleware.AccountMiddleware"],
    REST_AUTH={"USE_JWT": True, "JWT_AUTH_COOKIE": "jwt"},
    HEADLESS_ONLY=True,
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)

from base64 import b64encode  # noqa: E402

from asgiref.sync import sync_to_async  # noqa: E402
from channels.generic.http import AsyncHttpConsumer  # noqa: E402
from django.contrib import auth  # noqa: E402
from django.contrib.sessions.models import Session  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402
from knox.models import AuthToken  # noqa: E402
from oauth2_provider.models import AccessToken  # noqa: E402
from rest_framework.authentication import TokenAuthentication  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402
from rest_framework_simplejwt.tokens import AccessToken as JwtToken  # noqa: E402
from rest_framework_simplejwt.tokens import RefreshToken  # noqa: E402

from channels_wsdeny import DenyMiddlewareStack  # noqa: E402
from channels_wsdeny.authentication import SubprotocolToken  # noqa: E402
from channels_wsdeny.decorators import login_required, public  # noqa: E402
from tests.support.sockets import accept_as_user, consumer  # noqa: E402


def user_of(token):
    """What the page calls `user_of`."""
    found = Token.objects.filter(key=token).first()
    return found and found.user


@login_required
class Page(AsyncHttpConsumer):
    async def handle(self, body):
        await self.send_response(200, b"", headers=[(b"x-user", self.scope["user"].username.encode())])


def open_view(request):
    return HttpResponse(status=200, headers={"X-User": request.user.username})


Consumer, Public = consumer(accept_as_user), public(consumer(accept_as_user))
settings.ROOT_URLCONF = ModuleType("urls")
settings.ROOT_URLCONF.urlpatterns = [path("view/", login_required(open_view)), path("open/", open_view)]


def credentials():
    """For each package the header (or cookie) of each kind of credentials; the latter are valid unless named so."""
    users = auth.get_user_model().objects
    alice, gone = users.create_user("alice", password="secret"), users.create_user("gone", is_active=False)
    token = Token.objects.create(user=alice).key
    Token.objects.create(user=gone, key="of-inactive")
    jwt, late = str(JwtToken.for_user(alice)), JwtToken.for_user(alice)
    late.set_exp(lifetime=timedelta(seconds=-5))
    refresh = str(RefreshToken.for_user(alice))
    knox, knox_late = AuthToken.objects.create(alice), AuthToken.objects.create(alice, expiry=timedelta(seconds=-5))
    oauth = {"user": alice, "scope": "read"}
    now, hour = timezone.now(), timedelta(hours=1)
    AccessToken.objects.create(token="valid", expires=now + hour, **oauth)
    AccessToken.objects.create(token="late", expires=now - hour, **oauth)
    session, session_late = session_of(alice), session_of(alice, expiry=-5)

    def with_scheme(scheme, **tokens):
        return {name: {"authorization": f"{scheme} {value}"} for name, value in tokens.items()}

    basic = {name: b64encode(f"alice:{name}".encode()).decode() for name in ("secret", "wrong")}
    malformed = "two words"
    return {
        "rest_framework.authentication.TokenAuthentication": with_scheme(
            "Token", valid=token, wrong="x", malformed=malformed, inactive="of-inactive"
        ),
        "rest_framework.authentication.BasicAuthentication": with_scheme(
            "Basic", valid=basic["secret"], wrong=basic["wrong"], malformed=malformed
        ),
        "rest_framework.authentication.SessionAuthentication": {
            "valid": {"cookie": f"sessionid={session}"},
            "wrong": {"cookie": "sessionid=x"},
            "expired": {"cookie": f"sessionid={session_late}"},
            "malformed": {"cookie": f"sessionid={malformed}"},
        },
        "rest_framework_simplejwt.authentication.JWTAuthentication": with_scheme(
            "Bearer", valid=jwt, wrong="x.y.z", expired=str(late), malformed=malformed, refresh=refresh
        ),
        "knox.auth.TokenAuthentication": with_scheme(
            "Token", valid=knox[1], wrong="x" * 64, expired=knox_late[1], malformed=malformed
        ),
        "oauth2_provider.contrib.rest_framework.OAuth2Authentication": with_scheme(
            "Bearer", valid="valid", wrong="x", expired="late", malformed=malformed
        ),
        "dj_rest_auth.jwt_auth.JWTCookieAuthentication": {
            "valid": {"cookie": f"jwt={jwt}"},
            "in a header": {"authorization": f"Bearer {jwt}"},
            "wrong": {"cookie": "jwt=x.y.z"},
            "expired": {"cookie": f"jwt={late}"},
            "malformed": {"cookie": f"jwt={malformed}"},
            "of another page": {"cookie": f"jwt={jwt}", "origin": "https://evil.example"},
        },
        "allauth.headless.contrib.rest_framework.authentication.XSessionTokenAuthentication": {
            "valid": {"x-session-token": session},
            "wrong": {"x-session-token": "x"},
            "expired": {"x-session-token": session_late},
            "malformed": {"x-session-token": malformed},
        },
        "ApiToken": with_scheme("Bearer", valid=token, wrong="x", malformed=malformed),
        "SubprotocolToken": {
            "valid": {"sec-websocket-protocol": f"bearer, {token}"},
            "wrong": {"sec-websocket-protocol": "bearer, x"},
            "inactive": {"sec-websocket-protocol": "bearer, of-inactive"},
        },
    }


def session_of(user, expiry=None):
    """The key of a session."""
    client = Client()
    client.force_login(user)
    session = client.session
    session.set_expiry(expiry)
    session.save()
    return session.session_key


def change_password():
    alice = auth.get_user_model().objects.get(username="alice")
    alice.set_password("changed")
    alice.save()


#: What revokes the valid credentials of packages, in an order in which none revokes those of a later one.
REVOCATIONS = [
    (Token.objects.all().delete, ["rest_framework.authentication.TokenAuthentication", "ApiToken", "SubprotocolToken"]),
    (AuthToken.objects.all().delete, ["knox.auth.TokenAuthentication"]),
    (AccessToken.objects.all().delete, ["oauth2_provider.contrib.rest_framework.OAuth2Authentication"]),
    (
        Session.objects.all().delete,
        [
            "rest_framework.authentication.SessionAuthentication",
            "allauth.headless.contrib.rest_framework.authentication.XSessionTokenAuthentication",
        ],
    ),
    (change_password, ["rest_framework.authentication.BasicAuthentication"]),
]
#: What the page has no snippet for.
WITHOUT_SNIPPET = {
    "rest_framework.authentication.SessionAuthentication": ["rest_framework.authentication.SessionAuthentication"],
    "rest_framework.authentication.BasicAuthentication": ["rest_framework.authentication.BasicAuthentication"],
    "SubprotocolToken": [SubprotocolToken("bearer", TokenAuthentication())],
}


def authentication_of(package):
    """What the page puts into the settings for `package`."""
    if package in WITHOUT_SNIPPET:
        return WITHOUT_SNIPPET[package]
    section = (DOCS / "authentication.md").read_text().partition("\n## Packages\n")[2]
    (snippet,) = [text for text in blocks("authentication.md") if text in section and package in text]
    module = {"user_of": user_of}
    exec(compile(snippet, package, "exec"), module)
    return module["CHANNELS_WSDENY"]["AUTHENTICATION"]


async def answers(package, kinds):
    """For each kind: the status, challenge, code and user of each endpoint for users, and of each open one."""
    authentication = authentication_of(package)
    socket, public_socket, page = (
        DenyMiddlewareStack(each.as_asgi(), authentication=authentication) for each in (Consumer, Public, Page)
    )
    with override_settings(CHANNELS_WSDENY={"AUTHENTICATION": authentication}):
        views = get_asgi_application()
        with override_settings(MIDDLEWARE=[each for each in settings.MIDDLEWARE if each != MIRROR]):
            views_without_mirror = get_asgi_application()
        found = {}
        for kind, given in kinds.items():
            headers = [(name.encode(), value.encode()) for name, value in {"host": "testserver", **given}.items()]
            offered = given.get("sec-websocket-protocol")
            handshake = {"headers": headers, "subprotocols": offered.split(", ") if offered else []}
            found[kind] = {
                "socket": await knock(socket, "/", **handshake),
                "public socket": await knock(public_socket, "/", **handshake),
                "page": await fetch(page, "/", headers=headers),
                "view": await fetch(views, "/view/", headers=headers),
                "open view": await fetch(views, "/open/", headers=headers),
                "view without the mirror": await fetch(views_without_mirror, "/view/", headers=headers),
            }
    return {kind: {name: told(answer) for name, answer in each.items()} for kind, each in found.items()}


def told(answer):
    code = json.loads(answer.body)["code"] if answer.status >= 400 else None
    return [answer.status, answer.header("www-authenticate"), code, answer.header("x-user")]


async def main(kinds):
    found = {package: await answers(package, {"none": {}, **given}) for package, given in kinds.items()}
    for revoke, packages in REVOCATIONS:
        await sync_to_async(revoke)()
        for package in packages:
            found[package] |= await answers(package, {"revoked": kinds[package]["valid"]})
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(credentials()))))
