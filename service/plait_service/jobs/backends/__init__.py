"""Where drivers of jobs run: this machine, or a Ray cluster's Jobs API."""
