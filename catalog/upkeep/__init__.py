"""Jobs over many images, run by hand, by a timer or in the background.

Its modules:

    fsck        where the catalog and its stores disagree; `store_check` is about one store
    findings    what fsck reports
    judgement   what the format gate says of images that an earlier one accepted
    verify      comparing data with its digests
    repair      writing a damaged copy anew from good chunks
    replicator  making the copies that `replicas` asks for
    evacuate    taking every image out of a store
    lost        deleting what stores do not give back; stores that are gone for good
    scrub       emptying the trash after `scrub_time`, and forgetting old rows
    in_progress what is in progress on every host, and ending it
    backup      a copy of the database, made while others work on it
    schema      the database's schema: whether it fits, and bringing it up to date
    dump        the whole catalog as lines of JSON, from any database to any other one
"""
