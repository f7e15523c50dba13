"""The ledger's numbered SQL migrations."""
