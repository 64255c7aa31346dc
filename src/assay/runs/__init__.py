"""Run folders: what a run was told, what it did, and how to go on with it."""
