"""A platform for batch and real-time machine learning on tables."""

import os

# Read once, when a library first loads OpenMP. Its idle threads spin by default: beside other work
# on the same cores, fits and predictions then take many times as long as with one thread.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
