"""Row-level security where queries run: one adapter for each way to ask a database."""
