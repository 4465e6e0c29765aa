"""What keeps a lake usable for years: backups, repair of what was lost, moving."""
