"""The paper's theory where it can be checked: softmax regression with L2, bounds and all."""
