"""What operators do to guests that exist: lifecycle, resources, snapshots, images, consoles."""
