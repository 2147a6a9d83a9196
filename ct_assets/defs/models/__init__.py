"""The models of this deployment."""
