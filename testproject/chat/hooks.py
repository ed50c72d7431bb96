"""A tag on every response: accepted handshakes, denials and pages."""

import re
import time
import uuid

from channels_wsdeny import Hooks

hooks = Hooks()

_ACCEPTABLE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@hooks.on_request(priority=100, blocking=False)
def begin(request):
    """Take over the id that a proxy gave the request, or give it one; and look at the clock."""
    given = request.headers.get("X-Request-ID", "")
    request.ctx.id = given if _ACCEPTABLE.fullmatch(given) else uuid.uuid4().hex
    request.ctx.began = time.perf_counter()


@hooks.on_response(priority=100, blocking=False)
def tell(request, response):
    """Tell the id, and how long the answer took (Server Timing, a W3C working draft; milliseconds)."""
    response.headers["X-Request-ID"] = request.ctx.id
    took = (time.perf_counter() - request.ctx.began) * 1000
    response.headers["Server-Timing"] = f"app;dur={took:.1f}"
