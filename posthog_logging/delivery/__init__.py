"""How events get there: options, encoder, queue, spool, sender, transport."""
