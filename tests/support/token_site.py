"""A site with the packages for tokens, in a process of its own: it prints what each answers, as JSON.

    python -m tests.support.token_site DATABASE

The settings of each package are a snippet of docs/authentication.md.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from datetime import timedelta
from types import ModuleType

import django
from django.conf import settings

from tests.docs.pages import blocks
from tests.support.clients import fetch, knock

settings.configure(
    SECRET_KEY=secrets.token_hex(32),
    ALLOWED_HOSTS=["testserver"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    ROOT_URLCONF="tests.support.token_urls",
    INSTALLED_APPS=[
        "channels_wsdeny",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "rest_framework",
        "rest_framework.authtoken",
        "knox",
        "oauth2_provider",
        "allauth",
        "allauth.account",
        "allauth.headless",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "channels_wsdeny.middleware.MirrorMiddleware",
        "allauth.account.middleware.AccountMiddleware",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
    REST_AUTH={"USE_JWT": True, "JWT_AUTH_COOKIE": "jwt"},
    HEADLESS_ONLY=True,
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
django.setup()

from base64 import b64encode  # noqa: E402

from allauth.headless.internal.sessionkit import session_store  # noqa: E402
from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from django.contrib import auth  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import path  # noqa: E402
from django.utils import timezone  # noqa: E402
from knox.models import AuthToken  # noqa: E402
from oauth2_provider.models import AccessToken  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402
from rest_framework_simplejwt.tokens import AccessToken as JwtToken  # noqa: E402
from rest_framework_simplejwt.tokens import RefreshToken  # noqa: E402

from channels_wsdeny import DenyMiddlewareStack  # noqa: E402
from channels_wsdeny.decorators import login_required, public  # noqa: E402


def user_of(token):
    """What the page calls `user_of`."""
    found = Token.objects.filter(key=token).first()
    return found and found.user


class Consumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept(headers=[(b"x-user", self.scope["user"].username.encode())])


class Public(Consumer):
    pass


@login_required
def view(request):
    return HttpResponse(status=200, headers={"X-User": request.user.username})


public(Public)
urls = sys.modules[settings.ROOT_URLCONF] = ModuleType(settings.ROOT_URLCONF)
urls.urlpatterns = [path("view/", view)]


def credentials():
    """For each package the header (or cookie) of each kind of credentials; the latter are valid unless named so."""
    call_command("migrate", verbosity=0, run_syncdb=True)
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
    session = session_store()
    session.update({auth.SESSION_KEY: str(alice.pk), auth.BACKEND_SESSION_KEY: settings.AUTHENTICATION_BACKENDS[0]})
    session[auth.HASH_SESSION_KEY] = alice.get_session_auth_hash()
    session.save()

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
            "valid": {"cookie": f"sessionid={session.session_key}"},
            "wrong": {"cookie": "sessionid=x"},
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
            "expired": {"cookie": f"jwt={late}"},
            "of another page": {"cookie": f"jwt={jwt}", "origin": "https://evil.example"},
        },
        "allauth.headless.contrib.rest_framework.authentication.XSessionTokenAuthentication": {
            "valid": {"x-session-token": session.session_key},
            "wrong": {"x-session-token": "x"},
        },
        "ApiToken": with_scheme("Bearer", valid=token, wrong="x"),
    }


def authentication_of(package):
    """What the page puts into the settings for `package`; a package that it names elsewhere, by its path."""
    snippets = [text for text in blocks("authentication.md") if package in text.partition('{"AUTHENTICATION": [')[2]]
    if not snippets:
        return [package]
    module = {"user_of": user_of}
    exec(compile(snippets[0], package, "exec"), module)
    return module["CHANNELS_WSDENY"]["AUTHENTICATION"]


async def answers(package, kinds):
    """For each kind: the status, challenge, code and user of a socket, of a public one, and of a view."""
    authentication = authentication_of(package)
    apps = [DenyMiddlewareStack(consumer.as_asgi(), authentication=authentication) for consumer in (Consumer, Public)]
    found = {}
    for kind, given in {"none": {}, **kinds}.items():
        headers = [(name.encode(), value.encode()) for name, value in {"host": "testserver", **given}.items()]
        with override_settings(CHANNELS_WSDENY={"AUTHENTICATION": authentication}):
            asked = [await knock(app, "/", headers=headers) for app in apps]
            asked.append(await fetch(get_asgi_application(), "/view/", headers=headers))
        found[kind] = [told(answer) for answer in asked]
    return found


def told(answer):
    code = json.loads(answer.body)["code"] if answer.status >= 400 else None
    return [answer.status, answer.header("www-authenticate"), code, answer.header("x-user")]


async def main(kinds):
    return {package: await answers(package, given) for package, given in kinds.items()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(credentials()))))
