"""The ELPA report: a page from the files of a run, its figures, and the headline that commands print too."""
