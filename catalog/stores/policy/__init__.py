"""Policy around any driver: each rule a guard of its own, composed in `remote`."""
