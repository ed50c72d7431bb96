"""Receivers of signals in the hands of a test."""

from contextlib import contextmanager

from channels_wsdeny.signals import handshake_accepted, handshake_denied

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
