"""The nodes, one executable each: parameters to a core object to messages."""
