"""The main job: a year of recorded flights through the real definitions, faster than the wall clock."""
