"""Events with types: the schemas, what is made of them, and a program that uses it."""
