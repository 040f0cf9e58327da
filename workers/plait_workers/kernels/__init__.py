"""Compiled inner loops over flat arrays of bit patterns: nothing here knows of files or tensors' names.

They are written in C (``native/``), with the compiler's own vectors, and compiled when Plait is
installed: once for each level of processors, of which the best is taken at run time. They see numbers as
unsigned bit patterns, so that no bit of a value that is merely passed on can change, and give the same
bits on every level. All release the GIL.
"""
