"""The pure cores: plain values in, a decision out.

No clock, no network, no environment, no Starlette, no structlog. ``now`` is
always an argument, so that every rule can be tested by a table.
"""
