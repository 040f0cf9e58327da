"""Jobs of the service: their records, their states, who runs next, and where their drivers run."""
