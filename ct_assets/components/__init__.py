"""Components: one object per model, from which its assets, checks and sensors follow."""
