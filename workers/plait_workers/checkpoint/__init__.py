"""Checkpoints: what the files of a model hold, read strictly and written exactly."""
