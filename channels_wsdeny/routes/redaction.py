"""The redaction of bodies: what of a body may be logged."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ..log import escape

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from django.http import HttpRequest

#: Bytes of a body that is shown.
_LONGEST = 64 * 1024
_HIDDEN = "[redacted]"
_SECRET = re.compile(
    r"passw|passphrase|passcode|pwd|secret|token|cookie|session|csrf|xsrf|credential|authori[sz]|authenti"
    r"|oauth|saml|assertion|refresh|recovery|(?:api|access|private|signing)[\W_]?key|signature|bearer|jwt",
    re.IGNORECASE,
)
_SECRET_WORDS = {"pass", "auth", "key", "pin", "otp", "totp", "mfa", "pw", "cvv", "cvc", "sid", "code"}
#: Where a secret may begin in text: its name, a JSON Web Token, Basic credentials, a URL's password.
_SECRET_BEGINS = re.compile(
    rf"{_SECRET.pattern}|(?:{'|'.join(sorted(_SECRET_WORDS))})\d*[\"']?\s*[:=>]"
    r"|eyJ[\w-]{8}|\bbasic\s|://[^/\s:@]*:[^/\s@]*@",
    re.IGNORECASE,
)
#: Keys whose value names what another key holds: ``{"name": "password", "value": "..."}``.
_NAMING = ("name", "key", "field", "header", "id", "param")
_PLAIN_NAME = re.compile(r"[\w.\-\[\]]{1,64}")
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def describe(request: HttpRequest, clip: int, *, is_denied: bool = False) -> tuple[int | None, str]:
    """The size of the body in bytes as received, None if it was not read, and what of it may be logged.

    Secrets are left out, and the form fields that Django's `sensitive_post_parameters` names; on a view with
    that decorator, so is any body but a form. Nothing is shown of a request that was denied before the decorator could
    run. At most `clip` characters are shown.
    """
    raw_body: bytes | None = getattr(request, "raw_body", None)
    try:
        is_known = not is_denied or hasattr(request, "sensitive_post_parameters")
        shown = escape(_shown(request, is_read=raw_body is not None)) if is_known else "<denied>"
    except Exception:  # protects the response from a body that cannot be parsed
        shown = "<not readable>"
    return None if raw_body is None else len(raw_body), shown if len(shown) <= clip else f"{shown[:clip]}…"


def without_secrets(path: str) -> str:
    """`path` up to where a secret may begin, such as a JSON Web Token or what follows ``token/``."""
    found = _SECRET_BEGINS.search(path)
    return path if found is None else f"{path[: found.start()]}{_HIDDEN}"


def _shown(request: HttpRequest, *, is_read: bool) -> str:
    sensitive = getattr(request, "sensitive_post_parameters", ())
    if sensitive == "__ALL__":
        return _HIDDEN
    if request.content_type == "multipart/form-data":
        return _pairs(_fields(request), sensitive) if is_read or "_post" in vars(request) else "<not kept>"
    if not is_read:
        return "<not kept>"
    if len(request.body) > _LONGEST:
        return "<too long>"
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        return "<binary>"
    if _NO_TEXT.search(text):
        return "<binary>"
    is_form = request.content_type == "application/x-www-form-urlencoded"
    if is_form and not text.lstrip().startswith(("{", "[", "<")):
        return _pairs(parse_qsl(text, keep_blank_values=True), sensitive)
    if sensitive:
        return _HIDDEN
    try:
        return json.dumps(_redacted(json.loads(text)), ensure_ascii=False)
    except ValueError:
        return _without_secret(text)


def _fields(request: HttpRequest) -> Iterator[tuple[str, str]]:
    for name, values in request.POST.lists():
        yield from ((name, value) for value in values)
    for name, files in request.FILES.lists():
        yield from ((name, f"<file, {file.size} bytes>") for file in files)


def _pairs(pairs: Iterable[tuple[str, str]], sensitive: Container[str]) -> str:
    return "&".join(
        f"{_name(name)}={_HIDDEN if name in sensitive or _names_secret(name) else _without_secret(value)}"
        for name, value in pairs
    )


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return _without_secret(value)
    if isinstance(value, list):
        if len(value) == 2 and _names_secret(value[0]):
            return [value[0], _HIDDEN]
        return [_redacted(item) for item in value]
    if isinstance(value, dict):
        is_named = any(_names_secret(value.get(key)) for key in _NAMING)
        return {
            _name(key): _HIDDEN if is_named or _names_secret(key) else _redacted(item) for key, item in value.items()
        }
    return value


def _names_secret(name: Any) -> bool:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name) if isinstance(name, str) else []
    return bool(_SECRET.search("".join(words))) or any(word.lower() in _SECRET_WORDS for word in words)


def _name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else _without_secret(name)


def _without_secret(text: str) -> str:
    return _HIDDEN if _SECRET_BEGINS.search(text) else text
