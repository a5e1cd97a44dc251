"""What an operator does with the database as a whole.

dump    all rows as JSON has them, and back
grants  what a user of a database server needs
"""
