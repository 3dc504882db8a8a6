"""Pictures and pages of a finished product."""
