"""Where data lies: landing, quarantine, datasets, training sets; Parquet stores, DuckDB computes."""
