"""Contenders: who is measured."""

from __future__ import annotations

from dataclasses import dataclass

from .answers import CLOSED, denied


@dataclass(frozen=True)
class Contender:
    """A way to build a site, told by the module that has it: one of `benchmarks.sites`."""

    name: str
    module: str
    #: What must be importable: modules, or ``module:attribute``. Without them the contender is absent.
    needs: tuple[str, ...] = ()
    #: Whether it can only close, which servers answer by a bare 403.
    closes: bool = False

    def denied(self, status: int) -> str:
        """What its denial with this status looks like."""
        return CLOSED if self.closes else denied(status)


OURS = Contender("channels_wsdeny", "benchmarks.sites.ours")
BY_HAND = Contender("Channels by hand", "benchmarks.sites.channels", closes=True)
FLOOR = Contender("Django's own floor", "benchmarks.sites.floor")
BARE = Contender("bare ASGI", "benchmarks.sites.bare")
STARLETTE = Contender("Starlette", "benchmarks.sites.starlette", ("starlette",))
FASTAPI = Contender("FastAPI", "benchmarks.sites.fastapi", ("fastapi",))
QUART = Contender("Quart", "benchmarks.sites.quart", ("quart",))
LITESTAR = Contender("Litestar", "benchmarks.sites.litestar", ("litestar",), closes=True)

#: Ours without what closes open sockets: the setting, and what its rows are called.
LIVE_OFF = {"CHANNELS_WSDENY": {"LIVE": False}}
WITHOUT_LIVE = "channels_wsdeny, LIVE off"

#: Those that know no Django: a session cookie is all that they look at.
PEERS = (STARLETTE, FASTAPI, QUART, LITESTAR, BARE)
