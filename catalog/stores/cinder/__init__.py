"""Images in volumes of OpenStack Cinder."""
