"""Programs that run by themselves; the package carries them as ``tailrace._examples``."""
