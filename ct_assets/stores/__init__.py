"""Stores behind Feast and Dagster, plugged in where each lets others in: faster and safer than the stock ones.

Feast: an ASOF DuckDB offline store and a row-per-key SQLite online store. Dagster: its SQLite storages, pooled.
"""
