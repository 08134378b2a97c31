"""Where audit events go."""
