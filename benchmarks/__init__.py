"""Claims, measured: one module a claim, run by hand or with `make bench`."""
