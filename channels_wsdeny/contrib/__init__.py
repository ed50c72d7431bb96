"""Integrations with what a site may or may not have installed."""
