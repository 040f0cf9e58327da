"""The same merge on a Ray cluster: an executor whose workers are actors. Nothing else imports Ray.

Read ``messages`` (what driver and worker say), ``worker`` (who does the work), ``dispatcher`` (who does
what, without Ray in it), ``pool`` (workers' lives) and ``executor`` (the loop that joins them).
"""
