"""Stores: where an image's data lies.  The contract is in `base`."""
