"""Dagster resources: the lake, Feast, the model registry."""
