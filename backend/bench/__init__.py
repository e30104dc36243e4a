"""Measurements of the running system against the requirements' section 8.1 (`make bench`)."""
