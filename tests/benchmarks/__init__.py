"""Benchmarks: each row a number of the product beside a floor measured in the same run, as one ratio.

`python -m tests.benchmarks` runs them all and prints JSON. They never assert: a machine's speed is not a defect. A
floor is what the same work costs when nothing but the library below does it, so a ratio says what the product adds
and means the same on a slow machine and on a fast one.
"""
