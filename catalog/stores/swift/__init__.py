"""Images in OpenStack Swift, by its own API."""
