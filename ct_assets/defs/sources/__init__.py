"""The sources of this deployment and their contracts."""
