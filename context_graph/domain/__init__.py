"""Nouns and laws. Standard library only; nothing here does input or output."""
