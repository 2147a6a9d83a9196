"""Components: what a team writes in YAML, and what becomes of it."""

from ct_assets.components.continuous_training import ContinuousTraining

__all__ = ["ContinuousTraining"]
