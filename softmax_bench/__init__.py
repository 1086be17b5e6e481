"""softmax-bench: which softmax approximation for a large output layer, and at what price?"""
