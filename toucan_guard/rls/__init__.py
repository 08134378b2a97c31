"""Adapters that enforce the row filter when a query runs."""
