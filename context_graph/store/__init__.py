"""The one door to Redis. Nothing outside this package names redis, a key or a command."""
