"""Benchmarks: what handshakes cost, beside what people write by hand (``python -m benchmarks``)."""
