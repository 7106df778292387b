"""Tasks: prompts, parsing, verification and procedural sources."""
