"""Entity quality: mentions on WNUT 2017 and on hand-labelled events, resolution on labelled pairs.

`python -m tests.quality.entities`. How the labels were made is in README.md beside this file.
"""
