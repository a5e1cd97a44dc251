"""The part that Swift and Cinder share: accounts of Keystone, and OpenStack's use of HTTP."""
