"""Measuring: heads on a base, decoding against plain decoding, tokens against float32."""
