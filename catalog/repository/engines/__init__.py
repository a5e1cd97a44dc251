"""What differs between databases, each in one module; nothing else asks which one it is.

backend     the contract: opening, beginning, what errors mean, news of changes
answering   a server that does not answer: who waits for it, and who is refused at once
server      what the two database servers have in common
sqlite      a file on this host
postgresql  PostgreSQL
mariadb     MariaDB
columns     how types are declared, so that all three compare and round alike
opening     opening one, chosen by the database's url
"""
