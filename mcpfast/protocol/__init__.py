"""What is on the wire: revisions, messages, one module an era. No I/O, no sessions, no clock."""
