"""The walk of the shadow tables, from the root down."""
