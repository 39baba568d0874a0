"""Context Graph: the memory that agents can be held to account for.

The service package. `projections` (Stage 1) and `enrichment` (Stages 2 and 3) import it and never each other;
it imports neither: it finds their workers by the entry-point group `context_graph.workers`.
"""

__version__ = "0.1.0"
