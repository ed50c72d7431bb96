"""The walk through the hooks of one request: who runs them now, and who runs them in vain."""

from __future__ import annotations

from ..exceptions import HookError


class Walk:
    """Keeps the hooks of one request to one walk at a time, and to the answer that was decided on last."""

    __slots__ = ("_is_interrupted", "_is_running", "token")

    def __init__(self) -> None:
        self._is_running = self._is_interrupted = False
        #: What `overtake` replaces, for those who run hooks to `go_on` by.
        self.token = object()

    @property
    def is_over(self) -> bool:
        """Whether no hooks are being run, and none were interrupted."""
        return not (self._is_running or self._is_interrupted)

    def begin(self, *, opens: bool = True) -> object:
        """Begin to run hooks; `end` has to follow once their answer is there, or else `interrupt`.

        Returns what `interrupt` takes. Raises `HookError` while others run some, and, for what `opens` a
        door, if some were interrupted before: whoever tries again would pass without them.
        """
        if self._is_running:
            raise HookError("The hooks of this request are being run for another part of the application.")
        if opens and self._is_interrupted:
            raise HookError("The hooks of this request were interrupted, so it cannot go on without them.")
        self._is_running = True
        return self.token

    def end(self) -> None:
        """Whoever waited for the hooks has their answer."""
        self._is_running = False

    def interrupt(self, token: object) -> None:
        """Nobody waits for the hooks any more; in a thread, one of them may still be running."""
        self._is_running, self._is_interrupted = False, True
        if self.token is token:
            self.overtake()

    def overtake(self) -> None:
        """Another answer was decided on: whoever runs hooks for anything else runs no more of them."""
        self.token = object()

    def go_on(self, token: object) -> None:
        """Raise `HookError` if another answer was decided on since `token` was looked up."""
        if self.token is not token:
            raise HookError("The request was answered while others were asked.")
