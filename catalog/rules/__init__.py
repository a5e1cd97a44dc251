"""The rules: what may happen to images, names, locks and users, and who may do it.

A function whose first argument is a `repository` runs in its caller's transaction; any other is one
transaction by itself.  Nothing here touches a store.

    placement   where entries may be, and which entry replaces which
    folders     making, renaming and removing folders
    entries     making, renaming and removing names of images
    trash       moving images to the trash and restoring them
    fields      setting an image's fields and properties from text
    uploads     the statuses of an upload
    copies      recording copies: begun, complete, dropped
    replacing   restoring an image when its replacement fails
    sparing     refusing a deletion that may not mean an image
    members     who may see and read an image, and a shared image's members
    users       who may log in, with what password and in which role
    authentication      turning a name and a password into a principal
    locks       WebDAV's locks
    presence    publishing which processes live and what they hold open; dropping old rows

"""
