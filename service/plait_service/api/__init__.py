"""The HTTP service: jobs, events, tokens and schedules, for programs and for the ``plait`` command."""
