"""From what a caller sent to what the ledger keeps: validate, stamp, append."""
