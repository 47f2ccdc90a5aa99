"""Models of other layers, on the fabric."""
