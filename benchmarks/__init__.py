"""One module a claim: `python -m benchmarks.NAME` measures it against a named peer, `python -m benchmarks` all."""
