"""What Chromium opens: a page with the module, and sockets that are denied or closed in every way."""

from collections import Counter

import django

django.setup()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.contrib import auth  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402
from django.urls import path  # noqa: E402

from channels_wsdeny import Deny, DenyMiddlewareStack, views  # noqa: E402
from channels_wsdeny.authentication import (  # noqa: E402
    BearerAuthentication,
    SessionAuthentication,
    SubprotocolToken,
    TicketAuthentication,
)
from channels_wsdeny.decorators import require  # noqa: E402
from channels_wsdeny.policies import AllowAny, IsAuthenticated  # noqa: E402
from testproject.chat.views import static_file  # noqa: E402
from tests.support.case_site import Echo, with_another  # noqa: E402
from tests.support.policies import Check  # noqa: E402

PAGE = """<!doctype html><title>Sockets</title>
<input type="hidden" name="csrfmiddlewaretoken" value="CSRF_TOKEN">
<script type="module">
import { GuardedWebSocket } from "/static/channels_wsdeny/wsdeny.js";
const tell = ({ type, code, reason, delay, problem, data }) => ({ type, code, reason, delay, problem, data });
// A socket, and a promise of its events up to the first one that is called `until`.
globalThis.open_ = (url, protocols, options = {}, until = "close") => {
  const socket = globalThis.socket = new GuardedWebSocket(url, protocols, { minDelay: 0.01, ...options });
  const log = [];
  return new Promise((done) => {
    for (const type of ["open", "message", "denied", "retry", "error", "close"])
      socket.addEventListener(type, (event) => {
        log.push(tell(event));
        if (type == until) done([...log]);
      });
  });
};
globalThis.isOpen = () => new Promise((done) =>
  socket.readyState == socket.OPEN ? done(true) : socket.addEventListener("open", () => done(true)));
</script>"""
HANDSHAKES: Counter[str] = Counter()


def is_first(request):
    """Whether this is the first handshake with this token, or a question after it."""
    token = request.resolver_match.kwargs["token"]
    HANDSHAKES[token] += request.scope["type"] == "websocket"
    return HANDSHAKES[token] == 1


def busy_at_first(request):
    return Deny(429, "Too fast.", code="throttled", headers={"Retry-After": "1"}) if is_first(request) else True


def verify(token):
    return User.objects.get(username=token) if token == "alice" else None


class ClosesAtFirst(Echo):
    async def connect(self):
        await self.accept()
        if self.scope["wsdeny"].request.ctx.is_first:
            await self.close(self.scope["url_route"]["kwargs"]["code"], "closed")


def note_first(request):
    request.ctx.is_first = is_first(request)
    return True


def guarded(policy, consumer=Echo):
    return require(policy)(type(consumer.__name__, (consumer,), {})).as_asgi()


def denies(*arguments, **options):
    return Check(lambda request: Deny(*arguments, **options))


SOCKETS = [
    path("ws/open/", guarded(AllowAny())),
    path("ws/chat/", guarded(denies(403, "Not for you."))),
    path(
        "ws/status/<int:status>/", guarded(Check(lambda request: Deny(request.resolver_match.kwargs["status"], "No.")))
    ),
    path("ws/busy/<token>/", guarded(Check(busy_at_first))),
    path("ws/cookie/", guarded(Check(lambda request: request.COOKIES.get("who") == "alice" or Deny(401)))),
    path("ws/user/", guarded(IsAuthenticated())),
    path("ws/suspended/", guarded(IsAuthenticated() & denies(403, code="suspended"))),
    path("ws/close/<token>/<int:code>/", guarded(Check(note_first), ClosesAtFirst)),
]


def page(request):
    return HttpResponse(PAGE.replace("CSRF_TOKEN", get_token(request)))


def log_in(request):
    """Log alice in."""
    auth.login(request, User.objects.get(username="alice"), "django.contrib.auth.backends.ModelBackend")
    return page(request)


urlpatterns = [
    path("", page),
    path("log-in/", log_in),
    path("static/<path:path>", static_file),
    path("ticket/", views.ticket),
]
site = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter(SOCKETS)})
tokens = SubprotocolToken("bearer", BearerAuthentication(verify))
authentication = [tokens, TicketAuthentication(), SessionAuthentication()]  # The last is for the page.
responding = DenyMiddlewareStack(site, authentication=authentication)
closing = DenyMiddlewareStack(site, authentication=authentication, deny_with="close")
application = with_another(responding, "/closing", closing)
