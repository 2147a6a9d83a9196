"""The feature computations of this deployment."""
