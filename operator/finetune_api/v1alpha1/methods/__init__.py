"""The options of the methods, one file a variant. The text below a class is the method's section in docs/methods.md."""
