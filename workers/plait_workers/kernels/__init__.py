"""Compiled inner loops over flat arrays of bit patterns: nothing here knows of files or tensors' names.

Every kernel releases the GIL and is compiled once per machine and input width, then read from
Numba's cache on disk. Kernels see numbers as unsigned bit patterns, so that no bit of a value that
is merely passed on can change.
"""
