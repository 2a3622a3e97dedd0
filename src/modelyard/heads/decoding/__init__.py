"""Decoding: drafts of a tree, the pass that checks them, what is accepted, the text that comes of it."""
