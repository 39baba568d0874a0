"""Working memory, search and lineage: understand, find candidates, expand, fuse, pack, render. No LLM."""
