"""What a checkout needs beside the product: the data and the model of the demo."""
