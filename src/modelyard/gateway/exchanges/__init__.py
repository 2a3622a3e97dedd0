"""One request and its answer: what is asked, who is asked, what the client gets, what it took."""
