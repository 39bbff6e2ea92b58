"""The recipe and the description that the runs of these tests are made with."""

RECIPE = "name: x\n"
META = {"arm": "fixed-2", "seed": 0, "study": "trap"}
