"""Where recipients lead: the alias maps of the Postfix on this host, asked as Postfix asks them."""
