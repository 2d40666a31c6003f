"""The edges: only these rooms open descriptors. A transport turns its bytes into messages and answers into its bytes."""
