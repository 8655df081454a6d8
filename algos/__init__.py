"""Float references and bit-true integer models. No hardware in them."""
