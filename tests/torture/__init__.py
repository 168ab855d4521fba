"""What an operator meets, done on purpose: two installations that can be broken, and the program that breaks them."""
