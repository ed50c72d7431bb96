"""Names: what people call the code that a request meets."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

#: Where code is that is not the site's.
_INSTALLED = ("site-packages", "dist-packages", str(Path(__file__).parent))
#: Characters of an exception's text.
_LONGEST_TEXT = 200


def name_of(function: Any) -> str:
    """The dotted name of a function, class or view; of anything else, that of its class."""
    function = getattr(function, "view_class", getattr(function, "func", function))
    if not hasattr(function, "__qualname__"):
        function = type(function)
    return f"{getattr(function, '__module__', '?')}.{function.__qualname__}"


def place_of(error: BaseException) -> str:
    """The file and line that `error` comes from, in the site's own code if that had a part in it."""
    frames = traceback.extract_tb(error.__traceback__)[::-1]
    own = [frame for frame in frames if not any(part in frame.filename for part in _INSTALLED)]
    return next((f"{frame.filename}:{frame.lineno}" for frame in own or frames), "?")


def text_of(error: BaseException) -> str:
    """What `error` says, not too much of it."""
    try:
        return str(error)[:_LONGEST_TEXT]
    except Exception:  # noqa: BLE001 - an exception of the site's may fail at that, too
        return "?"
