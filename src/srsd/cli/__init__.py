"""srsctl, the command line. One module for each group of commands."""
