"""Tasks: where problems come from, how they are shown to a model, and how their answers are read back."""
