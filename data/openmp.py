"""Imported before PyTorch, whose OpenMP reads its settings once: threads that wait sleep, unless the user says otherwise.

By default they spin, and where other processes compute too, the thread that they wait for gets no core meanwhile: a
process with a thread per core is then many times slower than with one thread (bench/threads.py).
"""

import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
