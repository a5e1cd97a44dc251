"""What a running process is: its configuration, its start, its life beside the requests.

host_users      users of this host as principals
"""
