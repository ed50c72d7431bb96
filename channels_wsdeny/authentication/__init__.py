"""Authentication classes: who sends a request, by its session, a token or a ticket."""

from .base import Authentication, SessionAuthentication
from .bearer import BearerAuthentication, SubprotocolToken
from .ticket import TicketAuthentication, issue_ticket

__all__ = [
    "Authentication",
    "BearerAuthentication",
    "SessionAuthentication",
    "SubprotocolToken",
    "TicketAuthentication",
    "issue_ticket",
]
