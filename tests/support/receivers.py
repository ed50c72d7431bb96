"""Receivers of signals and handlers of log records in the hands of a test."""

import logging
from contextlib import contextmanager

from channels_wsdeny.signals import handshake_accepted, handshake_denied
from tests.support.policies import raising

HANDSHAKES = (handshake_accepted, handshake_denied)


@contextmanager
def connected(*receivers, signals=HANDSHAKES, sender=None):
    """Receivers of these signals, for a while."""
    all_of_them = [(signal, receiver) for receiver in receivers for signal in signals]
    for signal, receiver in all_of_them:
        signal.connect(receiver, sender=sender)
    try:
        yield
    finally:
        for signal, receiver in all_of_them:
            signal.disconnect(receiver, sender=sender)


class BrokenHandler(logging.Handler):
    """A handler of log records that raises."""

    emit = raising(ZeroDivisionError)
