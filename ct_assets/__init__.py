"""ct_assets: continuous training as software-defined assets."""
