"""Every system of the paper's Table 1 on the same data, model and runner."""
