"""PostgreSQL: connections, migrations, the ledger, locks, and the embedded server. Below the stages and observe."""
