"""Where bytes lie: one small protocol, ``ObjectStore``, and its stores."""
