"""Where bytes lie: the contract, its drivers, and the policy around them.

Knows keys and urls, not images.

    base                what every store does (MUST …), and the mixins of drivers
    registry            which types there are; puts the policy around a driver
    policy              retries, limits, the breaker, around any driver
    folder http s3 swift rbd cinder vmware memory       the drivers
    broken              a store whose section of the configuration is wrong
    openstack           Keystone, for the drivers of OpenStack's services
    http_client         what every driver that speaks HTTP shares
    glance_locations    which of our stores reads a location that Glance has recorded
    os_errors secret sparse     errors of the system, credentials by reference, files with holes
"""
