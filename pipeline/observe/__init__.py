"""Observation: events of the stages as log lines, and Luigi's attempts as ledger rows. It never changes an outcome."""
