"""Instances: the sources, features and models of this deployment."""
