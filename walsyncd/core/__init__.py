"""Pure code: no clock, file, network, thread or log. Bytes in, facts out."""
