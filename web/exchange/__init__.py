"""What requests and responses say, and the way of an image's data in and out.

environ        what we keep in the environment of a request
forwarded      who has sent a request, through proxies
limits         what one client may take of the server
paths          the path of a URL, decoded or refused
body           the body of a request; a file as that of a response
response       an answer, before the server writes it
errors         the status of each of the catalog's errors
negotiation    what an answer is written as
representation what an image is to HTTP: tags, dates, digests
conditions     conditional requests and ranges
announced      what is said of data before it comes
download       GET and HEAD of an image's data
upload         from a body to an upload
"""
