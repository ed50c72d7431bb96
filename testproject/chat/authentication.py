"""Tokens for programs: a table of the site's own, and the authentication class that reads it."""

from channels_wsdeny.authentication import BearerAuthentication
from testproject.chat.models import Token


def verify(secret):
    token = Token.objects.select_related("user").filter(digest=Token.digest_of(secret)).first()
    return None if token is None else (token.user, token)


token_authentication = BearerAuthentication(verify)
