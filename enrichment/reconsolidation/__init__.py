"""Stage 3: what is periodically made of sessions as a whole. The results are derived events in the ledger."""
