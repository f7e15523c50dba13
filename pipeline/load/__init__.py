"""Load: staging by COPY, the gate, the one publish transaction, history and rollback."""
