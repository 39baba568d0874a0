"""Stage 1: the ledger projected into a graph of events, sessions, agents, users and tools."""
