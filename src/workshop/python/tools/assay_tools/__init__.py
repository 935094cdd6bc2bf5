"""The tools of the workshop that need Python. What they share: `protocol` speaks with the job, `safe` closes the ways in which files
run code, `models` makes a module of a model."""
