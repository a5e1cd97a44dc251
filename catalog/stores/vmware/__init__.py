"""Images in a datastore of VMware vSphere."""
