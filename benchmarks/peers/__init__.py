"""Each layer against public implementations of the same method, and against the floor.

``python -m benchmarks.peers`` runs it. A competitor is a function that builds one step (forward and
backward) on given inputs. All competitors of a race alternate in one process, on the same numbers.
"""
