"""Records -> what a person looks at: the table of the terminal, the HTML page with the curves."""
