"""The engines: each is a Table that runs a step's rows (see plan.Table)."""
