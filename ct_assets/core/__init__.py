"""Pure core: statistics, gate, policy, ledger and replay. Imports no orchestrator, feature store or web framework."""
