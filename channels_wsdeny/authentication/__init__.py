"""Authentication classes: who sends a request, by its session, a token or a ticket."""

from .base import Authentication
from .bearer import BearerAuthentication, SubprotocolToken
from .session import SessionAuthentication
from .ticket import TicketAuthentication, issue_ticket

__all__ = [
    "Authentication",
    "BearerAuthentication",
    "SessionAuthentication",
    "SubprotocolToken",
    "TicketAuthentication",
    "issue_ticket",
]
