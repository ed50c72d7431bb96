"""The redaction of bodies: what of them a log may show."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from ..log import escape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.http import HttpRequest

    from .requests import RouteRequest

#: Bytes of a body that are looked into to log it.
_LONGEST_PARSED = 64 * 1024
_HIDDEN = "[redacted]"
_SECRET = re.compile(
    r"passw|passphrase|passcode|pwd|secret|token|cookie|session|csrf|xsrf|credential|authori[sz]|authenti"
    r"|oauth|(?:api|access|private|signing)[\W_]?key|signature|bearer|jwt",
    re.IGNORECASE,
)
_SECRET_WORDS = {"pass", "auth", "key", "pin", "otp", "pw", "cvv", "cvc", "sid"}
#: Where a secret may begin in text: its name, a JSON Web Token, a challenge's answer, a URL's password.
_SECRET_BEGINS = re.compile(
    rf"{_SECRET.pattern}|(?:{'|'.join(sorted(_SECRET_WORDS))})\d*[\"']?\s*[:=>]"
    r"|eyJ[\w-]{8}|\bbasic\s|://[^/\s:@]*:[^/\s@]*@",
    re.IGNORECASE,
)
#: Keys whose value names what another key holds: ``{"name": "password", "value": "..."}``.
_NAMING = ("name", "key", "field", "header", "id", "param")
_PLAIN_NAME = re.compile(r"[\w.\-\[\]]{1,64}")
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def describe(request: RouteRequest, clip: int) -> tuple[int | None, str]:
    """The size of a body, and what the log may show of it."""
    try:
        size = len(request.raw_body)
    except Exception:  # noqa: BLE001 - what cannot be logged must not change the answer
        size = None
    try:
        if request.content_type == "multipart/form-data":
            shown = _form_of(request) if size is not None or "_post" in vars(request) else "<not kept>"
        else:
            shown = _redacted(request.body, request.content_type == "application/x-www-form-urlencoded")
    except Exception:  # noqa: BLE001 - as above
        shown = "<not readable>"
    shown = escape(shown)
    return size, shown if len(shown) <= clip else f"{shown[:clip]}…"


def _form_of(request: HttpRequest) -> str:
    fields = [(name, value) for name, values in request.POST.lists() for value in values]
    files = [(name, f"<file, {file.size} bytes>") for name, files in request.FILES.lists() for file in files]
    return _pairs(fields + files)


def _redacted(body: bytes, is_form: bool) -> str:
    """`body` as text without secrets; of a long one, its beginning."""
    head = body[:_LONGEST_PARSED]
    try:
        text = codecs.utf_8_decode(head, "strict", head == body)[0]
    except UnicodeDecodeError:
        return "<binary>"
    if _NO_TEXT.search(text):
        return "<binary>"
    try:
        return json.dumps(_without_secrets(json.loads(text)), ensure_ascii=False)
    except ValueError:
        if is_form and not text.lstrip().startswith(("{", "[", "<")):
            return _pairs(parse_qsl(text, keep_blank_values=True))
        return _until_secret(text)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return _until_secret(value)
    if isinstance(value, list):
        if len(value) == 2 and _names_secret(value[0]):
            return [value[0], _HIDDEN]
        return [_without_secrets(item) for item in value]
    if isinstance(value, dict):
        is_named = any(_names_secret(value.get(key)) for key in _NAMING)
        return {
            _name(key): _HIDDEN if is_named or _names_secret(key) else _without_secrets(item)
            for key, item in value.items()
        }
    return value


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "&".join(
        f"{_name(name)}={_HIDDEN if _names_secret(name) else _until_secret(value)}" for name, value in pairs
    )


def _names_secret(name: Any) -> bool:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name) if isinstance(name, str) else []
    return bool(_SECRET.search("".join(words))) or any(word.lower() in _SECRET_WORDS for word in words)


def _name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else _until_secret(name)


def _until_secret(text: str) -> str:
    found = _SECRET_BEGINS.search(text)
    if found is None:
        return text
    # In a tag or an object that is cut off, the value may come before the name.
    begins = max(text.rfind(opening, 0, found.start()) for opening in "<{")
    return text[: begins if begins >= 0 else found.start()] + _HIDDEN
