"""Dagster-aware building blocks: asset factories, automation conditions, checks."""
