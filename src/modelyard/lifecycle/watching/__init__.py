"""A yard that is looked at again and again: why a step runs anew, and that an old version can stand again."""
