"""What Swift and Cinder share: accounts of Keystone, and HTTP as OpenStack speaks it."""
