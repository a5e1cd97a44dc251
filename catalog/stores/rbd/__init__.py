"""Images in Ceph RBD, laid out as Glance does."""
