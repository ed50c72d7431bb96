"""A site with django-tenants as docs/middleware.md sets it up, in a process of its own: it prints answers as JSON.

    python -m tests.support.tenants.site DATABASE

DATABASE is the settings of a PostgreSQL database, as JSON.
"""

import asyncio
import json
import secrets
import sys
from types import SimpleNamespace

import django
from django.conf import settings

from tests.docs.pages import blocks
from tests.support.clients import cookie_header, knock

(snippet,) = [text for text in blocks("middleware.md") if "django_tenants.cache.make_key" in text]
chosen = {}
exec(snippet, chosen)
default = {**chosen["CACHES"]["default"], "BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
SHARED = ["django_tenants", "tests.support.tenants"]
OF_TENANTS = ["channels_wsdeny", *(f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions"))]
settings.configure(
    SECRET_KEY=secrets.token_hex(32),
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {**json.loads(sys.argv[1]), "ENGINE": "django_tenants.postgresql_backend"}},
    DATABASE_ROUTERS=["django_tenants.routers.TenantSyncRouter"],
    CACHES={"default": default},
    SHARED_APPS=SHARED,
    TENANT_APPS=OF_TENANTS,
    INSTALLED_APPS=SHARED + OF_TENANTS,
    TENANT_MODEL="tenants.Tenant",
    TENANT_DOMAIN_MODEL="tenants.Domain",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    LOGGING_CONFIG=None,
    USE_TZ=True,
    CHANNELS_WSDENY={
        "MIDDLEWARE": ["django_tenants.middleware.main.TenantMainMiddleware"],
        "AUTHENTICATION": [
            "channels_wsdeny.authentication.TicketAuthentication",
            "channels_wsdeny.authentication.SessionAuthentication",
        ],
    },
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import URLRouter  # noqa: E402
from django.contrib.auth import get_user_model  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402
from django_tenants.utils import tenant_context  # noqa: E402

from channels_wsdeny import DenyMiddlewareStack  # noqa: E402
from channels_wsdeny.authentication import issue_ticket  # noqa: E402
from channels_wsdeny.decorators import require  # noqa: E402
from channels_wsdeny.policies import IsAuthenticated, Throttle  # noqa: E402
from tests.support.policies import AsyncCheck, Check  # noqa: E402
from tests.support.tenants.models import Domain, Tenant  # noqa: E402


def is_in_schema(request):
    return get_user_model().objects.get(pk=request.user.pk).username == request.user.username


#: What comes after it runs in another hop to a thread.
PASSES = AsyncCheck(lambda request: asyncio.sleep(0, True))


@require(IsAuthenticated() & PASSES & Check(is_in_schema))
class Consumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept(headers=[(b"x-user", self.scope["user"].username.encode())])


@require(Throttle("1/day", key="ip"))
class Limited(AsyncWebsocketConsumer):
    """Accepts one a day of each tenant."""


APP = DenyMiddlewareStack(URLRouter([path("", Consumer.as_asgi()), path("limited/", Limited.as_asgi())]))
HOSTS = {"one": "one.test", "two": "two.test"}


def prepare():
    """Two tenants, each with a user of its own whose number is the same; the session and a ticket of each."""
    with connection.schema_editor() as editor:
        editor.create_model(Tenant)
        editor.create_model(Domain)
    found = {}
    for name, host in HOSTS.items():
        tenant = Tenant(schema_name=name)
        tenant.save(verbosity=0)
        Domain.objects.create(domain=host, tenant=tenant, is_primary=True)
        with tenant_context(tenant):
            user = get_user_model().objects.create_user(f"user-of-{name}")
            client = Client()
            client.force_login(user)
            session = client.session
            ticket = issue_ticket(SimpleNamespace(user=user, session=session), "/")
        found[name] = {"pk": user.pk, "session": session.session_key, "ticket": ticket}
    connection.close()
    return found


async def ask(name, url="/", **cookies):
    answer = await knock(APP, url, headers=[(b"host", HOSTS[name].encode()), *cookie_header(**cookies)])
    return answer.header("x-user") or answer.status


async def main(made):
    one, two = made["one"], made["two"]
    return {
        "the same number": one["pk"] == two["pk"],
        "sessions": [await ask(name, sessionid=each["session"]) for each in made.values() for name in HOSTS],
        "tickets": [await ask(name, f"/?ticket={one['ticket']}") for name in ("two", "one", "one")],
        "throttle": [
            await ask(name, "/limited/", sessionid=made[name]["session"]) for name in ("one", "one", "two", "two")
        ],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(prepare()))), flush=True)
