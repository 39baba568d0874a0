"""Which names are one thing: evidence between two, clusters of many, and what an agent is shown of them."""
