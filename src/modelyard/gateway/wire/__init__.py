"""HTTP/1.1 on both sides of the gateway, on httptools' parsers: no routing, no money, no JSON."""
