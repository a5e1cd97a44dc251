"""What may happen to images, names, locks and people, and who may do it.

Each function is one transaction, or a part of one that its caller has begun (its first argument is
then the `repository`).  Nothing here touches a store.

    placement   where entries may be, and what gives way to what
    folders     making, renaming and removing folders
    entries     making, renaming and removing names of images
    trash       what removing means: to the trash, and back
    fields      an image's fields and properties, set from text
    uploads     an upload's way through the statuses
    copies      copies: begun, complete, forgotten
    replacing   what comes back when an image that was to replace another one fails
    sparing     which images are spared from a deletion that may not mean them
    members     who reads a shared image besides its owner
    users       who may log in, with what password and in which role
    authentication      a name and a password become a principal
    locks       WebDAV's locks
    presence    that a process lives, what it holds open, and what nobody asks for any more

"""
